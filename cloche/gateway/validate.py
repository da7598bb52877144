"""Parameters checked against the model, with the sentences that AWS's services answer.

`2 validation errors detected: Value 'x' at 'a.b' failed to satisfy constraint: Member must …; …`
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.limits import ERRORS, SHOWN_CHARACTERS
from cloche.gateway.patterns import compiled
from cloche.gateway.shapes import Shape

NOT_NULL = "Member must not be null"
# Characters that a pattern is tried on: fewer of a value that is too long anyway.
LONGEST_MATCHED, LONGEST_ANYWAY = 1_000_000, 10_000


@dataclass(frozen=True, slots=True)
class ShapeRules:
    """What the model asks of one shape, beside the members of structures."""

    enum: tuple[str, ...]
    least: float | None
    most: float | None
    pattern: str | None
    noun: str  # "length" or "value"
    secret: bool

    @property
    def empty(self) -> bool:
        """True when nothing is asked."""
        return not self.enum and self.least is None and self.most is None and self.pattern is None

    def broken(self, value: Any) -> Iterator[str]:
        """Return the sentences about what `value` breaks."""
        size = value if self.noun == "value" else len(value)
        if self.enum and value not in self.enum:
            yield self.enum_text
        if self.most is not None and size > self.most:
            yield self.most_text
        if self.least is not None and size < self.least:
            yield self.least_text
        too_long = self.most is not None and size > self.most
        longest = LONGEST_ANYWAY if too_long else LONGEST_MATCHED
        if self.pattern is not None and isinstance(value, str) and size <= longest:
            expression = compiled(self.pattern)
            if expression is not None and expression.fullmatch(value) is None:
                yield self.pattern_text

    def all(self) -> list[str]:
        """Return all sentences, as AWS lists them about the items of lists and maps."""
        return [
            *([self.enum_text] if self.enum else ()),
            *([self.most_text] if self.most is not None else ()),
            *([self.least_text] if self.least is not None else ()),
            *([self.pattern_text] if self.pattern is not None else ()),
        ]

    @property
    def enum_text(self) -> str:
        """What an enum asks."""
        return f"Member must satisfy enum value set: [{', '.join(self.enum)}]"

    @property
    def most_text(self) -> str:
        """What an upper bound asks."""
        return f"Member must have {self.noun} less than or equal to {self.most}"

    @property
    def least_text(self) -> str:
        """What a lower bound asks."""
        return f"Member must have {self.noun} greater than or equal to {self.least}"

    @property
    def pattern_text(self) -> str:
        """What a pattern asks."""
        return f"Member must satisfy regular expression pattern: {self.pattern}"


@cache
def rules(shape: Shape) -> ShapeRules:
    """Return the rules of a shape."""
    traits = shape.traits
    counted = shape.kind in ("integer", "float")
    measured = shape.kind in ("string", "list", "map", "blob") and not traits.get("streaming")
    bounded = counted or measured
    return ShapeRules(
        enum=tuple(traits.get("enum", ())) if shape.kind == "string" else (),
        least=traits.get("min") if bounded else None,
        most=traits.get("max") if bounded else None,
        pattern=traits.get("pattern") if shape.kind == "string" else None,
        noun="value" if counted else "length",
        secret=bool(traits.get("sensitive")),
    )


@cache
def quiet(shape: Shape) -> bool:
    """Return whether neither a shape nor anything below it asks for anything.

    Lists and maps ask that no item is null.
    """
    seen: set[int] = set()

    def silent(one: Shape) -> bool:
        if id(one) in seen:
            return True
        seen.add(id(one))
        below = [f.shape for f in one.fields] + [s for s in (one.item, one.key) if s is not None]
        if one.kind in ("list", "map") or one.required:
            return False
        return rules(one).empty and all(silent(s) for s in below)

    return silent(shape)


def check(shape: Shape, parameters: Mapping[str, Any], code: str) -> None:
    """Raise AwsError with that code when parameters break the model; it lists ERRORS at most."""
    errors = list(islice(structure_errors(shape, parameters, ""), ERRORS))
    if errors:
        noun = "validation error" if len(errors) == 1 else "validation errors"
        raise AwsError(code, f"{len(errors)} {noun} detected: {'; '.join(errors)}")


def structure_errors(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Return the sentences about a structure's members."""
    for name in shape.required:
        if value.get(name) is None:
            where = member_path(path, name)
            yield f"Value null at '{where}' failed to satisfy constraint: {NOT_NULL}"
    for name, item in value.items():
        field = shape.by_name[name].shape
        if item is not None and not quiet(field):
            yield from errors_of(field, item, member_path(path, name))


def member_path(path: str, name: str) -> str:
    """Return where a member is, as AWS names it: in lower camel case."""
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name


def errors_of(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Return the sentences about a value and all that is in it."""
    own = rules(shape)
    if not own.empty:
        for text in own.broken(value):
            yield sentence(shape, value, path, text)
    if shape.kind == "structure":
        yield from structure_errors(shape, value, path)
    elif shape.kind == "list":
        yield from item_errors(shape, value, path)
    elif shape.kind == "map":
        yield from entry_errors(shape, value, path)


def item_errors(shape: Shape, value: list[Any], path: str) -> Iterator[str]:
    """Return the sentences about a list's items: one for all where they are scalars."""
    assert shape.item is not None
    item = shape.item
    if item.kind in ("structure", "list", "map"):
        for number, one in enumerate(value, 1):
            where = f"{path}.{number}.member"
            if one is None:
                yield f"Value null at '{where}' failed to satisfy constraint: {NOT_NULL}"
            else:
                yield from errors_of(item, one, where)
        return
    own = rules(item)
    if any(one is None or next(own.broken(one), None) for one in value):
        asked = ", ".join([*own.all(), NOT_NULL])
        yield sentence(shape, value, path, f"Member must satisfy constraint: [{asked}]")


def entry_errors(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Return the sentences about a map's keys and values."""
    assert shape.item is not None and shape.key is not None
    keys, item = rules(shape.key), shape.item
    if any(next(keys.broken(key), None) for key in value):
        asked = ", ".join(keys.all())
        yield sentence(shape, value, path, f"Map keys must satisfy constraint: [{asked}]")
    if item.kind in ("structure", "list", "map"):
        for key, one in value.items():
            where = f"{path}.{key}.member"
            if one is None:
                yield f"Value null at '{where}' failed to satisfy constraint: {NOT_NULL}"
            else:
                yield from errors_of(item, one, where)
        return
    own = rules(item)
    if any(one is None or next(own.broken(one), None) for one in value.values()):
        asked = ", ".join([*own.all(), *([NOT_NULL] if None in value.values() else ())])
        yield sentence(shape, value, path, f"Map value must satisfy constraint: [{asked}]")


def sentence(shape: Shape, value: Any, path: str, text: str) -> str:
    """Return one sentence; a secret's value is not repeated."""
    shown = "Value" if hidden(shape) else f"Value '{shortened(value)}'"
    return f"{shown} at '{path}' failed to satisfy constraint: {text}"


def hidden(shape: Shape) -> bool:
    """Return whether a value, or what it holds, is a secret."""
    return any(rules(s).secret for s in (shape, shape.item, shape.key) if s is not None)


def shortened(value: Any) -> str:
    """Return a value's text, cut off where it is very long."""
    text, size = [], 0
    for piece in java_text(value):
        text.append(piece[: SHOWN_CHARACTERS + 1])
        size += len(piece)
        if size > SHOWN_CHARACTERS:
            return "".join(text)[:SHOWN_CHARACTERS] + "…"
    return "".join(text)


def java_text(value: Any) -> Iterator[str]:
    """Return the pieces of a value as Java's toString writes it."""
    if isinstance(value, list):
        yield "["
        for number, one in enumerate(value):
            yield ", " if number else ""
            yield from java_text(one)
        yield "]"
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, one) in enumerate(value.items()):
            yield f", {key}=" if number else f"{key}="
            yield from java_text(one)
        yield "}"
    elif value is None:
        yield "null"
    elif isinstance(value, bytes):
        yield f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
    else:
        yield str(value)
