"""Values of the API as JSON: what the json and rest-json protocols have in common.

Wrong types are answered as AWS's own JSON services do (`SerializationException`); unknown members
are ignored and null is as good as absent, as there.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway import scalars
from cloche.gateway.limits import DEPTH, NODES
from cloche.gateway.scalars import (
    Malformed,
    read_blob,
    read_timestamp,
    write_blob,
    write_number,
    write_timestamp,
)
from cloche.gateway.shapes import Kind, Shape

NAMES: Mapping[Kind, str] = {
    "string": "a String",
    "integer": "an Integer",
    "float": "a Double",
    "boolean": "a Boolean",
    "timestamp": "a Date",
    "blob": "a Blob",
}

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def load(body: bytes) -> Any:
    """Return the JSON value that a body holds; an empty body is an empty object."""
    if not body:
        return {}
    try:
        if len(body) > NODES and not few(body):
            raise ValueError(f"it has more than {NODES} values")
        value = DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise AwsError("SerializationException", f"The body is not JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > DEPTH and not shallow(value):
        raise AwsError("SerializationException", f"The body is nested more than {DEPTH} deep.")
    return value


def few(body: bytes) -> bool:
    """Return whether a JSON text has at most NODES values, without reading it."""
    if separators(body) <= NODES:
        return True
    return separators(STRING.sub(b"", body)) <= NODES


def separators(text: bytes) -> int:
    """Return how many characters begin or separate values."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def shallow(value: Any) -> bool:
    """Return whether a value is nested at most DEPTH deep."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH):
        if not level:
            return True
        level = [
            one
            for outer in level
            for one in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(one, (dict, list))
        ]
    return not level


def no_number(text: str) -> float:
    """Refuse `NaN`, `Infinity` and `-Infinity`, which Python reads as numbers and JSON has not."""
    raise ValueError(f"{text} is not a JSON value")


DECODER = json.JSONDecoder(parse_constant=no_number)


def dump(value: object) -> bytes:
    """Return a value as UTF-8 JSON without spaces."""
    return ENCODER.encode(value).encode()


def read(shape: Shape, value: Any) -> Any:
    """Return the API's value of a JSON value that is not null."""
    return READERS[shape.kind](shape, value)


def write(shape: Shape, value: Any) -> Any:
    """Return the JSON value of what a handler gave."""
    return value if shape.plain else WRITERS[shape.kind](shape, value)


# ---------------------------------------------------------------------- reading


def read_structure(shape: Shape, value: Any) -> dict[str, Any]:
    """Return a structure's members by the API's names."""
    if not isinstance(value, dict):
        raise mismatch(shape, value)
    found: dict[str, Any] = {}
    for field in shape.fields:
        item = value.get(field.wire)
        if item is not None:
            found[field.name] = READERS[field.shape.kind](field.shape, item)
    return found


def read_list(shape: Shape, value: Any) -> list[Any]:
    """Return a list; null items stay null, for validation to refuse."""
    if not isinstance(value, list):
        raise mismatch(shape, value)
    assert shape.item is not None
    reader, item_shape = READERS[shape.item.kind], shape.item
    return [None if item is None else reader(item_shape, item) for item in value]


def read_map(shape: Shape, value: Any) -> dict[str, Any]:
    """Return a map."""
    if not isinstance(value, dict):
        raise mismatch(shape, value)
    assert shape.item is not None
    reader, item_shape = READERS[shape.item.kind], shape.item
    return {key: None if item is None else reader(item_shape, item) for key, item in value.items()}


def read_string(shape: Shape, value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise mismatch(shape, value)
    if not value.isascii():
        check_text(value)
    return value


def check_text(value: str) -> None:
    """Raise when text has half of a surrogate pair (`"\\ud800"`), which no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise AwsError("SerializationException", f"The text is not Unicode: {error}") from error


def read_integer(shape: Shape, value: Any) -> int:
    """Return an integer; a fraction is cut off, as Coral does."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise mismatch(shape, value)
    try:
        return scalars.read_integer(shape, int(value))
    except (Malformed, ValueError, OverflowError) as error:
        raise mismatch(shape, value) from error


def read_float(shape: Shape, value: Any) -> float:
    """Return a number; `NaN`, `Infinity` and `-Infinity` come as strings."""
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise mismatch(shape, value)
    try:
        return scalars.read_float(value)
    except Malformed as error:
        raise mismatch(shape, value) from error


def read_boolean(shape: Shape, value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise mismatch(shape, value)
    return value


def read_moment(shape: Shape, value: Any) -> datetime:
    """Return a timestamp."""
    if isinstance(value, (dict, list)):
        raise mismatch(shape, value)
    try:
        return read_timestamp(value)
    except Malformed as error:
        raise mismatch(shape, value) from error


def read_bytes(shape: Shape, value: Any) -> bytes:
    """Return a blob."""
    if not isinstance(value, str):
        raise mismatch(shape, value)
    try:
        return read_blob(value)
    except Malformed as error:
        raise mismatch(shape, value) from error


def read_document(shape: Shape, value: Any) -> Any:
    """Return a document: any JSON."""
    return value


def mismatch(shape: Shape, value: object) -> AwsError:
    """Return Coral's refusal of a JSON value of the wrong type."""
    if isinstance(value, list):
        text = "Start of list found where not expected"
    elif isinstance(value, dict):
        text = "Start of structure or map found where not expected."
    elif shape.kind == "list":
        text = "Expected list or null"
    elif shape.kind in ("structure", "map"):
        text = "Expected null"
    else:
        kind = (
            "TRUE_VALUE"
            if value is True
            else "FALSE_VALUE"
            if value is False
            else "STRING_VALUE"
            if isinstance(value, str)
            else "NUMBER_VALUE"
        )
        text = f"{kind} can not be converted to {NAMES[shape.kind]}"
    return AwsError("SerializationException", text)


READERS: Mapping[Kind, Callable[[Shape, Any], Any]] = {
    "structure": read_structure,
    "list": read_list,
    "map": read_map,
    "string": read_string,
    "integer": read_integer,
    "float": read_float,
    "boolean": read_boolean,
    "timestamp": read_moment,
    "blob": read_bytes,
    "document": read_document,
}


# ---------------------------------------------------------------------- writing


def write_structure(shape: Shape, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a structure's members by their names on the wire; None is left out."""
    written: dict[str, Any] = {}
    for name, item in value.items():
        if item is None:
            continue
        field = shape.by_name[name]
        kind = field.shape
        written[field.wire] = item if kind.plain else WRITERS[kind.kind](kind, item)
    return written


def write_list(shape: Shape, value: Any) -> list[Any]:
    """Return a list."""
    assert shape.item is not None
    writer, item_shape = WRITERS[shape.item.kind], shape.item
    return [writer(item_shape, item) for item in value]


def write_map(shape: Shape, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map."""
    assert shape.item is not None
    writer, item_shape = WRITERS[shape.item.kind], shape.item
    return {key: writer(item_shape, item) for key, item in value.items()}


def write_moment(shape: Shape, value: datetime) -> str | int | float:
    """Return a timestamp: seconds since 1970 unless the model says otherwise."""
    return write_timestamp(value, shape.timestamp_format or "unixtimestamp")


def write_bytes(shape: Shape, value: bytes | str) -> str:
    """Return a blob."""
    return write_blob(value.encode() if isinstance(value, str) else value)


def write_float(shape: Shape, value: float) -> float | str:
    """Return a number."""
    return write_number(value)


def write_plain(shape: Shape, value: Any) -> Any:
    """Return a value that JSON has as it is."""
    return value


WRITERS: Mapping[Kind, Callable[[Shape, Any], Any]] = {
    "structure": write_structure,
    "list": write_list,
    "map": write_map,
    "string": write_plain,
    "integer": write_plain,
    "float": write_float,
    "boolean": write_plain,
    "timestamp": write_moment,
    "blob": write_bytes,
    "document": write_plain,
}
