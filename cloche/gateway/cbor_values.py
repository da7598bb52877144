"""CBOR as Smithy's RPC v2 uses it (RFC 8949): what the API's values need, both ways."""

import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway import scalars
from cloche.gateway.limits import DEPTH, NODES
from cloche.gateway.scalars import Malformed, read_timestamp
from cloche.gateway.shapes import Shape

INDEFINITE = 31
BREAK = 0xFF
SIMPLE: Mapping[int, object] = {20: False, 21: True, 22: None, 23: None}
FLOATS: Mapping[int, tuple[str, int]] = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}


class CborReader:
    """Reads the items of a CBOR document; Malformed when it is none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.depth, self.count = data, 0, 0, 0

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.at + count
        if end > len(self.data):
            raise Malformed("the CBOR is truncated")
        found, self.at = self.data[self.at : end], end
        return found

    def argument(self, info: int) -> int:
        """Return the number that belongs to an item's head."""
        if info < 24:
            return info
        if info > 27:
            raise Malformed(f"additional information {info}")
        return int.from_bytes(self.bytes(1 << (info - 24)), "big")

    def ends(self) -> bool:
        """Return whether an item of indefinite length ends here."""
        if self.at < len(self.data) and self.data[self.at] == BREAK:
            self.at += 1
            return True
        return False

    def item(self) -> Any:
        """Return the next item."""
        self.depth += 1
        if self.depth > DEPTH:
            raise Malformed("nested too deeply")
        self.one_more()
        head = self.bytes(1)[0]
        major, info = head >> 5, head & 31
        value = self.simple(info) if major == 7 else self.of_major(major, info)
        self.depth -= 1
        return value

    def one_more(self) -> None:
        """Count a value, or a piece of one."""
        self.count += 1
        if self.count > NODES:
            raise Malformed(f"it has more than {NODES} values")

    def of_major(self, major: int, info: int) -> Any:
        """Return an item of a major type below 7."""
        if major == 0:
            return self.argument(info)
        if major == 1:
            return -1 - self.argument(info)
        if major in (2, 3):
            return self.string(major, info)
        if major == 4:
            return self.array(info)
        if major == 5:
            return self.map(info)
        tag, value = self.argument(info), self.item()
        if tag != 1:
            raise Malformed(f"tag {tag}")
        return read_timestamp(value)

    def string(self, major: int, info: int) -> Any:
        """Return a byte or text string."""
        if info == INDEFINITE:
            parts = []
            while not self.ends():
                self.one_more()
                head = self.bytes(1)[0]
                if head >> 5 != major:
                    raise Malformed("a part of a string is not one")
                parts.append(self.bytes(self.argument(head & 31)))
            data = b"".join(parts)
        else:
            data = self.bytes(self.argument(info))
        try:
            return data if major == 2 else data.decode()
        except UnicodeDecodeError as error:
            raise Malformed("text is not UTF-8") from error

    def array(self, info: int) -> list[Any]:
        """Return an array."""
        if info != INDEFINITE:
            return [self.item() for _ in range(self.argument(info))]
        items = []
        while not self.ends():
            items.append(self.item())
        return items

    def map(self, info: int) -> dict[str, Any]:
        """Return a map; its keys are text."""
        found: dict[str, Any] = {}
        left = None if info == INDEFINITE else self.argument(info)
        while left != 0 if left is not None else not self.ends():
            key = self.item()
            if not isinstance(key, str):
                raise Malformed("a key is not text")
            found[key] = self.item()
            left = None if left is None else left - 1
        return found

    def simple(self, info: int) -> Any:
        """Return a boolean, null or floating-point number."""
        if info in SIMPLE:
            return SIMPLE[info]
        if info not in FLOATS:
            raise Malformed(f"simple value {info}")
        form, size = FLOATS[info]
        return struct.unpack(form, self.bytes(size))[0]


def load(body: bytes) -> Any:
    """Return the value of a CBOR document; SerializationException when it is none."""
    reader = CborReader(body)
    try:
        value = reader.item()
        if reader.at != len(body):
            raise Malformed("something follows the CBOR")
    except Malformed as error:
        raise AwsError("SerializationException", f"The body is not CBOR: {error}") from error
    return value


def head(major: int, number: int) -> bytes:
    """Return an item's head."""
    if number < 24:
        return bytes((major << 5 | number,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | info,)) + number.to_bytes(size, "big")
    raise ValueError(f"{number} does not fit CBOR")


def dump(value: Any) -> bytes:
    """Return a value as CBOR: timestamps as seconds under tag 1."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return head(3, len(data)) + data
    if isinstance(value, (bytes, bytearray)):
        return head(2, len(value)) + value
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        seconds = round(moment.timestamp(), 3)
        return b"\xc1" + dump(int(seconds) if seconds.is_integer() else seconds)
    if isinstance(value, Mapping):
        items = b"".join(dump(k) + dump(v) for k, v in value.items())
        return head(5, len(value)) + items
    return head(4, len(value)) + b"".join(dump(v) for v in value)


def read(shape: Shape, value: Any) -> Any:
    """Return the API's value of a CBOR value; SerializationException when it is of another type."""
    if value is None:
        return None
    kind = shape.kind
    if kind == "structure":
        given = expect(value, dict, shape)
        return {
            f.name: read(f.shape, given[f.wire])
            for f in shape.fields
            if given.get(f.wire) is not None
        }
    if kind == "list":
        assert shape.item is not None
        return [read(shape.item, item) for item in expect(value, list, shape)]
    if kind == "map":
        assert shape.item is not None
        return {k: read(shape.item, item) for k, item in expect(value, dict, shape).items()}
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(scalars.read_float(value))
        except Malformed as error:
            raise wrong_type(shape) from error
    if kind == "integer" and isinstance(value, float) and math.isfinite(value):
        value = int(value)
    types = {
        "string": str,
        "integer": int,
        "float": float,
        "boolean": bool,
        "timestamp": datetime,
        "blob": bytes,
    }
    found = expect(value, types[kind], shape)
    if kind == "integer":
        try:
            return scalars.read_integer(shape, found)
        except Malformed as error:
            raise wrong_type(shape) from error
    return found


def expect(value: Any, kind: type, shape: Shape) -> Any:
    """Return a value of that Python type; SerializationException when it is another."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong_type(shape)
    return value


def wrong_type(shape: Shape) -> AwsError:
    """Return the refusal of a value that is none of its shape's type."""
    return AwsError("SerializationException", f"A value of {shape.name} must be a {shape.kind}.")


def write(shape: Shape, value: Any) -> Any:
    """Return a result by its names on the wire, ready for `dump`."""
    if value is None or shape.kind == "document":
        return value
    if shape.kind == "structure":
        return {
            shape.by_name[name].wire: write(shape.by_name[name].shape, item)
            for name, item in value.items()
            if item is not None
        }
    if shape.kind in ("list", "map"):
        assert shape.item is not None
        if shape.kind == "list":
            return [write(shape.item, item) for item in value]
        return {key: write(shape.item, item) for key, item in value.items()}
    if shape.kind == "blob" and isinstance(value, str):
        return value.encode()
    return value
