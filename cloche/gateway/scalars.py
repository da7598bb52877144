"""Timestamps, numbers, blobs and booleans in the forms that AWS's protocols give them."""

import base64
import binascii
import math
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from cloche.core import numbers
from cloche.gateway.limits import DATE_CHARACTERS
from cloche.gateway.shapes import Shape


class Malformed(Exception):
    """A value that is none of its type; the protocol says how AWS answers that."""


def read_timestamp(value: object) -> datetime:
    """Return the moment that seconds since 1970, ISO 8601 or RFC 822 text names; else Malformed."""
    if isinstance(value, bool):
        raise Malformed("a boolean is not a timestamp")
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        text = str(value).strip()
        if len(text) > DATE_CHARACTERS:
            raise Malformed(f"{text[:DATE_CHARACTERS]!r}… is not a timestamp")
        if text[:1].isdigit() and "T" not in text and "-" not in text:
            return datetime.fromtimestamp(numbers.real(text), UTC)
        read = datetime.fromisoformat if text[:1].isdigit() else parsedate_to_datetime
        moment = read(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed(f"{value!r} is not a timestamp") from error


def read_integer(shape: Shape, value: int) -> int:
    """Return an integer that fits its type (32 or 64 bits); Malformed when it does not."""
    if not -(1 << shape.bits - 1) <= value < 1 << shape.bits - 1:
        raise Malformed(f"{str(value)[:40]} does not fit {shape.bits} bits")
    return value


def read_float(value: int | float) -> float:
    """Return a number as JSON or CBOR has it, if it is finite; Malformed when it is not."""
    try:
        if math.isfinite(value):
            return value
    except OverflowError:
        pass
    raise Malformed("the number is out of range")


def write_timestamp(value: datetime, form: str) -> str | int | float:
    """Return a moment as `unixtimestamp`, `rfc822` or `iso8601` (with milliseconds where it has
    any; `milliseconds` is the same with milliseconds always).
    """
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if form == "unixtimestamp":
        seconds = round(moment.timestamp(), 3)
        return int(seconds) if seconds.is_integer() else seconds
    moment = moment.astimezone(UTC)
    if form == "rfc822":
        return format_datetime(moment.replace(microsecond=0), usegmt=True)
    exact = moment.microsecond or form == "milliseconds"
    return moment.isoformat(timespec="milliseconds" if exact else "seconds")[:-6] + "Z"


def read_text(shape: Shape, text: str) -> object:
    """Return the value of a scalar that came as text (query, XML, headers); Malformed if none."""
    kind = shape.kind
    if kind == "string":
        return text
    try:
        if kind == "integer":
            return read_integer(shape, numbers.integer(text))
        if kind == "float":
            return numbers.SPELLED.get(text) or numbers.real(text)
    except ValueError as error:
        raise Malformed(str(error)) from error
    if kind == "boolean":
        lowered = text.strip().lower()
        if lowered not in ("true", "false"):
            raise Malformed(f"{text[:DATE_CHARACTERS]!r} is not a boolean")
        return lowered == "true"
    if kind == "timestamp":
        return read_timestamp(text)
    if kind == "blob":
        return read_blob(text)
    raise Malformed(f"{text!r} is not a {kind}")


def write_text(shape: Shape, value: object, form: str = "iso8601") -> str:
    """Return a scalar as text; `form` is how a timestamp is written unless its shape says."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(write_timestamp(value, shape.timestamp_format or form))
    if isinstance(value, bytes):
        return write_blob(value)
    if isinstance(value, float):
        return str(write_number(value))
    if shape.kind == "blob":
        return write_blob(str(value).encode())
    return str(value)


def write_number(value: float) -> float | str:
    """Return a number as JSON can hold it: AWS spells the three that JSON has not."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def read_blob(text: str) -> bytes:
    """Return the bytes that base64 text holds; Malformed when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("not base64") from error


def write_blob(value: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(value).decode("ascii")
