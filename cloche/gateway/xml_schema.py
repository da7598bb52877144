"""Whether an XML body is what S3's published schema allows: its elements, and those it needs.

What elements hold is read by `xml_values`.
"""

from functools import cache
from xml.etree.ElementTree import Element

from cloche.gateway.scalars import Malformed
from cloche.gateway.shapes import Field, Shape
from cloche.gateway.xml_values import flat_name


def check(shape: Shape, node: Element, name: str) -> None:
    """Raise Malformed unless a document of that name fits its type."""
    if node.tag != name:
        raise Malformed(f"the document is a {node.tag}, not a {name}")
    check_value(shape, node)


def check_value(shape: Shape, node: Element) -> None:
    """Raise Malformed unless an element fits its type."""
    if shape.kind == "structure":
        check_members(shape, node)
    elif shape.kind == "list":
        assert shape.item is not None
        check_all(shape.item, node, shape.item.wire or "member")
    elif shape.kind != "map" and len(node):
        raise Malformed(f"{node.tag} has elements of its own")


def check_all(shape: Shape, node: Element, name: str) -> None:
    """Raise Malformed unless all of an element's children are items of a list."""
    for child in node:
        check(shape, child, name)


def check_members(shape: Shape, node: Element) -> None:
    """Raise Malformed for a member that is unknown, sent twice, or lacks."""
    known, seen = elements(shape), set[str]()
    for child in node:
        field = known.get(child.tag)
        if field is None or (child.tag in seen and not field.shape.flattened):
            raise Malformed(f"{node.tag} can't have this {child.tag}")
        seen.add(child.tag)
        inner = field.shape
        if inner.flattened and inner.kind == "list":
            assert inner.item is not None
            inner = inner.item
        check_value(inner, child)
    for name in shape.required:
        field = shape.by_name[name]
        attribute = field.shape.traits.get("xmlAttribute")
        if field.shape.location is None and not attribute and flat_name_of(field) not in seen:
            raise Malformed(f"{node.tag} lacks {field.wire}")


@cache
def elements(shape: Shape) -> dict[str, Field]:
    """Return a structure's members by the names of their elements.

    `Event` and `Events` of the old notifications share one: then the list stands for both.
    """
    inside = [field for field in shape.fields if field.shape.location is None]
    inside.sort(key=lambda field: field.shape.flattened)
    return {flat_name_of(field): field for field in inside}


def flat_name_of(field: Field) -> str:
    """Return the name of a member's elements."""
    return flat_name(field) if field.shape.flattened else field.wire
