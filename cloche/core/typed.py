"""What is kept as JSON, with types: fields that are known are checked, others are kept.

A newer Cloche may have written fields that this one does not know: they stay with the value that
they were read with, through every copy of it, and are written again where they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Struct, UnsetType

logger = logging.getLogger("cloche.records")
UNKNOWN = "…"  # no field that a document has: names of fields are identifiers


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object whose fields are known; one that is not there has its default."""

    unknown: MappingProxyType[str, Any] | UnsetType = msgspec.field(default=UNSET, name=UNKNOWN)

    def replace(self, **changes: Any) -> Self:
        """Return this with some fields changed."""
        return msgspec.structs.replace(self, **changes)


R = TypeVar("R", bound=Record)
A = TypeVar("A")
B = TypeVar("B")


class BadRecord(Exception):
    """What was kept can't be read; the text says of which resource or file, and which field."""


# What reading a row raises that something else has written: not all that is kept has types.
DAMAGED = (BadRecord, AttributeError, LookupError, TypeError, ValueError)


def decode(of: type[R], content: object, where: str) -> R:
    """Return JSON's values as a record; BadRecord names `where` (an ARN, a path) and the field."""
    if isinstance(content, Mapping) and not isinstance(content, dict):
        content = dict(content)  # msgspec passes over an error of a mapping's own
    try:
        return msgspec.convert(content, of)
    except msgspec.ValidationError:
        pass  # one that has fields to keep, or is wrong
    try:
        return msgspec.convert(folded(of, content), of, dec_hook=read_only)
    except msgspec.ValidationError as error:
        raise BadRecord(f"{where}: {error}") from None


def readable(read: Callable[[A], B], rows: Iterable[A]) -> Iterator[B]:
    """Yield what `read` makes of each row. One that is damaged is told of, and harms no other."""
    for row in rows:
        try:
            made = read(row)
        except DAMAGED as error:
            logger.error("a record can't be read, the others can: %s", error, exc_info=error)
        else:
            yield made


def encode(record: Record) -> dict[str, Any]:
    """Return a record as JSON's values, as it was read but for what was changed since."""
    kept: list[MappingProxyType[str, Any]] = []

    def note(value: MappingProxyType[str, Any]) -> dict[str, Any]:
        kept.append(value)
        return {}

    made: dict[str, Any] = msgspec.to_builtins(record, enc_hook=note)
    return unfolded(record, made) if kept else made


def read_only(_: object, value: dict[str, Any]) -> MappingProxyType[str, Any]:
    """Return unknown fields as a record holds them."""
    return MappingProxyType(value)


@cache
def fields(of: type[Record]) -> Mapping[str, tuple[str, Any]]:
    """Return, by its name in JSON, each field's name in Python and its type."""
    return {
        field.encode_name: (field.name, field.type)
        for field in msgspec.structs.fields(of)
        if field.encode_name != UNKNOWN
    }


def folded(of: Any, value: Any) -> Any:
    """Return JSON's values with what their types do not know put under `UNKNOWN`."""
    if isinstance(of, type) and issubclass(of, Record):
        if not isinstance(value, Mapping):
            return value
        known = fields(of)
        inner = {
            name: folded(known[name][1], each) for name, each in value.items() if name in known
        }
        unknown = {name: each for name, each in value.items() if name not in known}
        return inner | {UNKNOWN: unknown} if unknown else inner
    arguments = get_args(of)
    if get_origin(of) in (Union, UnionType):
        for each in arguments:
            value = folded(each, value)
        return value
    if get_origin(of) is tuple and isinstance(value, list | tuple):
        return [folded(arguments[0], each) for each in value]
    if get_origin(of) is Mapping and isinstance(value, Mapping):
        return {name: folded(arguments[1], each) for name, each in value.items()}
    return value


def unfolded(of: Any, made: Any) -> Any:
    """Return what msgspec made of a value, with the unknown fields in their places."""
    if isinstance(of, Record):
        inner = {
            name: unfolded(getattr(of, field), made[name])
            for name, (field, _) in fields(type(of)).items()
            if name in made
        }
        return inner if of.unknown is UNSET else {**of.unknown, **inner}
    if isinstance(of, tuple) and isinstance(made, list | tuple):
        return [unfolded(each, part) for each, part in zip(of, made, strict=True)]
    if isinstance(of, Mapping):
        return {name: unfolded(each, made[name]) for name, each in of.items()}
    return made
