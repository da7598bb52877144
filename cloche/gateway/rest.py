"""What rest-json and rest-xml have in common: parameters in the path, the query and headers."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cloche.gateway.message import Request
from cloche.gateway.scalars import Malformed, read_text, write_text
from cloche.gateway.shapes import Field, Shape

# An item of a header list: quoted, or up to the next comma.
ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"\s*|([^,]*))(?:,|$)')


@dataclass(frozen=True, slots=True)
class MemberLocations:
    """The members of a structure by where they travel."""

    uri: tuple[Field, ...]
    query: tuple[Field, ...]
    query_map: Field | None
    header: tuple[tuple[str, Field], ...]  # lower-cased names
    header_of: Mapping[str, str]  # by the member's name
    prefixes: tuple[tuple[str, Field], ...]  # lower-cased
    status: Field | None
    body: tuple[Field, ...]


@cache
def places(shape: Shape) -> MemberLocations:
    """Return where the members of an input or output travel."""
    by: dict[str | None, list[Field]] = {}
    for field in shape.fields:
        by.setdefault(field.shape.location, []).append(field)
    query = by.get("querystring", [])
    return MemberLocations(
        uri=tuple(by.get("uri", ())),
        query=tuple(f for f in query if f.shape.kind != "map"),
        query_map=next((f for f in query if f.shape.kind == "map"), None),
        header=tuple((f.wire.lower(), f) for f in by.get("header", ())),
        header_of={f.name: f.wire.lower() for f in by.get("header", ())},
        prefixes=tuple(((f.shape.wire or "").lower(), f) for f in by.get("headers", ())),
        status=next(iter(by.get("statusCode", ())), None),
        body=tuple(by.get(None, ())),
    )


class MalformedPlace(Malformed):
    """A parameter of path, query or header that is none of its type."""

    def __init__(self, field: Field, text: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.text = field, text


def read_places(shape: Shape, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that lie outside the body; MalformedPlace names a wrong one."""
    where, found = places(shape), dict[str, Any]()
    for field in where.uri:
        if field.wire in labels:
            found[field.name] = read_place(field, labels[field.wire])
    if request.query and (where.query or where.query_map is not None):
        read_query(where, request.query, found)
    headers = request.headers
    for name, field in where.header:
        text = headers.get(name)
        if text is not None:
            value = read_header(field, text)
            if value is not None:
                found[field.name] = value
    for prefix, field in where.prefixes:
        values = {k[len(prefix) :]: v for k, v in headers.items() if k.startswith(prefix)}
        if values:
            found[field.name] = values
    return found


def read_query(
    where: MemberLocations, query: Sequence[tuple[str, str]], found: dict[str, Any]
) -> None:
    """Add the parameters of the query."""
    several: dict[str, list[str]] = {}
    for name, text in query:
        several.setdefault(name, []).append(text)
    for field in where.query:
        texts = several.pop(field.wire, None)
        if texts is None:
            continue
        if field.shape.kind == "list":
            assert field.shape.item is not None
            item = Field(field.name, field.wire, field.shape.item)
            found[field.name] = [read_place(item, text) for text in texts]
        elif len(texts) > 1:
            raise MalformedPlace(field, texts[1], "it is given more than once")
        elif texts[0] or field.shape.kind == "string":
            found[field.name] = read_place(field, texts[0])
    if where.query_map is not None and several:
        shape = where.query_map.shape.item
        lists = shape is not None and shape.kind == "list"
        found[where.query_map.name] = {k: v if lists else v[0] for k, v in several.items()}


def read_place(field: Field, text: str) -> Any:
    """Return a parameter's value."""
    try:
        return read_text(field.shape, text)
    except Malformed as error:
        raise MalformedPlace(field, text, str(error)) from error


def read_header(field: Field, text: str) -> Any:
    """Return a header's value; None for a date that can't be read, which AWS ignores."""
    shape = field.shape
    if shape.kind == "list":
        assert shape.item is not None
        item = Field(field.name, field.wire, shape.item)
        return [read_place(item, one) for one in split_header(shape.item, text)]
    if shape.traits.get("jsonvalue"):
        try:
            return json.loads(base64.b64decode(text))
        except (ValueError, RecursionError) as error:
            raise MalformedPlace(field, text, "not JSON in base64") from error
    try:
        return read_text(shape, text.strip())
    except Malformed as error:
        if shape.kind == "timestamp":
            return None
        raise MalformedPlace(field, text, str(error)) from error


def split_header(item: Shape, text: str) -> list[str]:
    """Return the items of a header that holds a list; an RFC 822 date has a comma of its own."""
    if item.kind == "timestamp" and "GMT" in text:
        parts = [part.strip() for part in text.split(",")]
        return [f"{day}, {rest}" for day, rest in zip(parts[::2], parts[1::2], strict=False)]
    items: list[str] = []
    at = 0
    while at < len(text):
        match = ITEM.match(text, at)
        if match is None:
            break
        quoted, bare = match.groups()
        items.append(quoted.replace('\\"', '"') if quoted is not None else bare.strip())
        at = match.end()
    return items


def write_places(
    shape: Shape, result: Mapping[str, Any], headers: dict[str, str], status: int
) -> int:
    """Add the headers of a result; return the HTTP status, which a member may give."""
    where = places(shape)
    for name, value in result.items():
        header = where.header_of.get(name)
        if header is not None and value is not None:
            headers[header] = write_header(shape.by_name[name].shape, value)
    for prefix, field in where.prefixes:
        for key, value in (result.get(field.name) or {}).items():
            headers[prefix + key.lower()] = value
    if where.status is not None and result.get(where.status.name) is not None:
        return int(result[where.status.name])
    return status


def write_header(shape: Shape, value: Any) -> str:
    """Return a header's text."""
    if isinstance(value, str) and not shape.traits.get("jsonvalue"):
        return value
    if shape.kind == "list":
        assert shape.item is not None
        item = shape.item
        return ", ".join(quoted(write_text(item, one, "rfc822"), item) for one in value)
    if shape.traits.get("jsonvalue"):
        return base64.b64encode(json.dumps(value).encode()).decode()
    return write_text(shape, value, "rfc822")


def quoted(text: str, item: Shape) -> str:
    """Return an item of a header list, in quotes where it needs them."""
    if item.kind == "string" and ("," in text or '"' in text):
        return '"' + text.replace('"', '\\"') + '"'
    return text
