"""Values made from botocore's models, for tests that go through every operation."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

DEPTH = 5
TEXT = 's tr/&<"é+%='


def value(shape: Shape, chance: random.Random, depth: int = 0) -> Any:
    """Return a value that botocore takes for `shape`: all members, down to a depth."""
    if getattr(shape, "is_document_type", False):
        return {"a": ["b", 1.5, None]}
    if isinstance(shape, StructureShape):
        return structure(shape, chance, depth)
    if isinstance(shape, ListShape):
        return [value(shape.member, chance, depth + 1) for _ in range(1 if depth > 1 else 2)]
    if isinstance(shape, MapShape):
        keys = getattr(shape.key, "enum", None) or ["k1", "k2"]
        return {key: value(shape.value, chance, depth + 1) for key in keys[:2]}
    return scalar(shape, chance)


def structure(shape: StructureShape, chance: random.Random, depth: int) -> dict[str, Any]:
    union = shape.is_tagged_union
    if depth > (3 * DEPTH if union else DEPTH):
        return {}
    items = list(shape.members.items())
    if union:
        items = items[:1]
    found = {}
    for name, member in items:
        if member.serialization.get("eventstream"):
            continue
        nested = member.type_name in ("structure", "list", "map")
        if depth > 2 and nested and not union and name not in shape.required_members:
            continue
        found[name] = value(member, chance, depth + 1)
    return found


def scalar(shape: Shape, chance: random.Random) -> Any:
    kind = shape.type_name
    if kind == "boolean":
        return chance.random() < 0.5
    if kind in ("integer", "long"):
        return chance.randint(1, 500)
    if kind in ("float", "double"):
        return chance.randint(1, 500) / 4
    if kind == "timestamp":
        return datetime(2026, 3, 4, 5, 6, chance.randint(0, 59), tzinfo=UTC)
    if kind == "blob":
        return b"bl\x00b<&>\xff"
    if getattr(shape, "enum", None):
        return shape.enum[0]
    plain = shape.serialization.get("location") in ("header", "headers")
    return f"str{chance.randint(1, 99)}" if plain else f"{TEXT}{chance.randint(1, 99)}"


def same(one: Any) -> Any:
    """Return a value in a form that two equal values share: empty members left out."""
    if isinstance(one, dict):
        members = {key: same(item) for key, item in one.items()}
        return {key: item for key, item in members.items() if item not in ({}, [], None)}
    if isinstance(one, (list, tuple)):
        items = [same(item) for item in one]
        return [item for item in items if item not in ({}, [], None)]
    if hasattr(one, "read"):
        one = one.read()
    if isinstance(one, (bytes, bytearray)):
        return bytes(one).decode("utf-8", "replace")
    if isinstance(one, datetime):
        return (one if one.tzinfo else one.replace(tzinfo=UTC)).timestamp()
    if isinstance(one, bool) or not isinstance(one, (int, float)):
        return one
    return float(one)
