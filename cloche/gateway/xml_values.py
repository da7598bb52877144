"""Values of the API as XML: what query, ec2 and rest-xml have in common."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.sax.saxutils import escape, quoteattr

from cloche.gateway.limits import DEPTH, ELEMENTS
from cloche.gateway.scalars import Malformed, read_text, write_text
from cloche.gateway.shapes import Field, Shape

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
# Characters that an XML reader would change on the way, or refuse: XML 1.0 has no way to write
# them, so the replacement character stands for each.
ENTITIES = {"\r": "&#13;"}
ILLEGAL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SPECIAL = re.compile(r"[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def load(body: bytes) -> Element:
    """Return a document's root without namespaces; Malformed when it is not XML."""
    parser = XMLParser(target=Builder())
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise Malformed(str(error)) from error
    return root


class Builder(TreeBuilder):
    """Builds a tree of bounded depth and size; of no document that defines entities."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.count = 0, 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refuse a document type, in whichever encoding it comes."""
        raise Malformed("document types and entities are not allowed")

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        """Begin an element."""
        self.depth += 1
        self.count += 1
        if self.depth > DEPTH:
            raise Malformed(f"nested more than {DEPTH} deep")
        if self.count > ELEMENTS:
            raise Malformed(f"more than {ELEMENTS} elements")
        return super().start(tag.rpartition("}")[2], attributes)

    def end(self, tag: str, /) -> Element:
        """End an element."""
        self.depth -= 1
        return super().end(tag.rpartition("}")[2])


# ---------------------------------------------------------------------- reading


def read(shape: Shape, node: Element) -> Any:
    """Return the value of an element."""
    if shape.kind == "structure":
        return read_structure(shape, node)
    assert shape.kind != "document"
    if shape.kind == "list":
        assert shape.item is not None
        return read_items(shape, node.findall(shape.item.wire or "member"))
    if shape.kind == "map":
        return read_entries(shape, node.findall("entry"))
    return read_text(shape, node.text or "")


def read_structure(shape: Shape, node: Element) -> dict[str, Any]:
    """Return a structure's members that lie in the body."""
    found: dict[str, Any] = {}
    for field in shape.fields:
        if field.shape.location is None:
            value = read_member(field, node)
            if value is not None:
                found[field.name] = value
    return found


def read_member(field: Field, node: Element) -> Any:
    """Return a member of a structure; None when it is not there."""
    shape = field.shape
    if shape.traits.get("xmlAttribute"):
        name = field.wire.rpartition(":")[2]
        return next((v for k, v in node.attrib.items() if k.rpartition("}")[2] == name), None)
    if shape.flattened:
        children = node.findall(flat_name(field))
        if not children:
            return None
        return (
            read_items(shape, children) if shape.kind == "list" else read_entries(shape, children)
        )
    child = node.find(field.wire)
    return None if child is None else read(shape, child)


def flat_name(field: Field) -> str:
    """Return the name of a flattened member's elements: its items' where the model names them."""
    if field.shape.kind == "list" and field.shape.item is not None:
        return field.shape.item.wire or field.wire
    return field.wire


def read_items(shape: Shape, nodes: Sequence[Element]) -> list[Any]:
    """Return a list."""
    assert shape.item is not None
    return [read(shape.item, node) for node in nodes]


def read_entries(shape: Shape, nodes: Sequence[Element]) -> dict[str, Any]:
    """Return a map."""
    assert shape.item is not None and shape.key is not None
    found: dict[str, Any] = {}
    for node in nodes:
        key = node.find(shape.key.wire or "key")
        value = node.find(shape.item.wire or "value")
        if key is None or value is None:
            raise Malformed("an entry lacks its key or value")
        found[key.text or ""] = read(shape.item, value)
    return found


# ---------------------------------------------------------------------- writing


def write(shape: Shape, value: Any, name: str, form: str = "iso8601") -> str:
    """Return a value as an element called `name`; `form` is how timestamps are written."""
    if shape.kind == "structure":
        attributes = namespace(shape)
        if attributes_of(shape):
            attributes += write_attributes(shape, value)
        return f"<{name}{attributes}>{write_members(shape, value, form)}</{name}>"
    if shape.kind == "list":
        assert shape.item is not None
        if shape.flattened:
            return write_items(shape, value, shape.item.wire or name, form)
        inner = write_items(shape, value, shape.item.wire or "member", form)
        return f"<{name}{namespace(shape)}>{inner}</{name}>"
    if shape.kind == "map":
        if shape.flattened:
            return write_entries(shape, value, name, form)
        return f"<{name}{namespace(shape)}>{write_entries(shape, value, 'entry', form)}</{name}>"
    text = value if type(value) is str else write_text(shape, value, form)
    return f"<{name}>{escaped(text)}</{name}>"


def escaped(text: str) -> str:
    """Return text as an XML element holds it."""
    return escape(legal(text), ENTITIES) if SPECIAL.search(text) else text


def legal(text: str) -> str:
    """Return text with a replacement character for each that XML can't hold."""
    return ILLEGAL.sub("\ufffd", text)


def write_members(shape: Shape, value: Mapping[str, Any], form: str = "iso8601") -> str:
    """Return the elements of a structure's members that lie in the body."""
    if not value.keys() <= shape.by_name.keys():
        raise KeyError(f"{shape.name} has no member {sorted(value.keys() - shape.by_name.keys())}")
    return "".join(
        [
            write(field.shape, value[field.name], field.wire, form)
            for field in in_body(shape)
            if value.get(field.name) is not None
        ]
    )


@cache
def in_body(shape: Shape) -> tuple[Field, ...]:
    """Return the members that are elements of the body."""
    return tuple(
        f
        for f in shape.fields
        if f.shape.location is None and not f.shape.traits.get("xmlAttribute")
    )


def write_attributes(shape: Shape, value: Mapping[str, Any]) -> str:
    """Return the members that are attributes."""
    return "".join(
        f" {f.wire}={quoteattr(legal(write_text(f.shape, value[f.name])))}"
        for f in attributes_of(shape)
        if value.get(f.name) is not None
    )


@cache
def attributes_of(shape: Shape) -> tuple[Field, ...]:
    """Return the members that are attributes."""
    return tuple(f for f in shape.fields if f.shape.traits.get("xmlAttribute"))


def write_items(shape: Shape, value: Sequence[Any], name: str, form: str) -> str:
    """Return a list's items as elements called `name`."""
    assert shape.item is not None
    item = shape.item
    return "".join([write(item, one, name, form) for one in value])


def write_entries(shape: Shape, value: Mapping[str, Any], name: str, form: str) -> str:
    """Return a map's entries as elements called `name`."""
    assert shape.item is not None and shape.key is not None
    key_name, value_name = shape.key.wire or "key", shape.item.wire or "value"
    return "".join(
        f"<{name}>{write(shape.key, key, key_name)}"
        f"{write(shape.item, item, value_name, form)}</{name}>"
        for key, item in value.items()
    )


@cache
def namespace(shape: Shape) -> str:
    """Return the xmlns attribute that the model asks for."""
    asked = shape.traits.get("xmlNamespace")
    if not asked:
        return ""
    uri, prefix = (asked, "") if isinstance(asked, str) else (asked["uri"], asked.get("prefix"))
    return f" xmlns{':' + prefix if prefix else ''}={quoteattr(uri)}"
