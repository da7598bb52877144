"""Patterns of policies: `*`, `?` and `${variables}`, taken apart once, matched in linear time.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from typing import TypeGuard, cast

from cloche.core.authorization import Values

Keys = Mapping[str, Values]
Fits = Callable[[str], bool]
WILDCARD = re.compile(r"(?P<variable>(?!))|(?P<wildcard>[*?])")  # never a variable
TOKEN = re.compile(r"\$\{(?P<variable>[^{}]*)\}|(?P<wildcard>[*?])")
WITH_DEFAULT = re.compile(r"([^,]*), '(.*)'", re.DOTALL)
LITERAL = ("*", "?", "$")  # ${*} is a star, not a wildcard
SEGMENTS = 6  # of an ARN; the last one may have colons
READERS = 128  # characters whose places an automaton remembers


class Wildcard(Enum):
    """What stands for other characters; the inner ones for no colon."""

    STAR = "*"
    ONE = "?"
    INNER_STAR = "inner *"
    INNER_ONE = "inner ?"


@dataclass(frozen=True, slots=True)
class Variable:
    """A `${key}` or `${key, 'default'}`; text: as it was written."""

    key: str
    default: str | None
    text: str

    def value(self, keys: Keys) -> str | None:
        """Return what it stands for; None where the request has no value, or several."""
        found = keys.get(self.key)
        if found is None:
            return self.default
        return found if isinstance(found, str) else None


Part = str | Wildcard | Variable
Plain = str | Wildcard
INNER: Mapping[Part, Part] = {
    Wildcard.STAR: Wildcard.INNER_STAR,
    Wildcard.ONE: Wildcard.INNER_ONE,
}


def parse(text: str, *, variables: bool, wildcards: bool = True) -> list[Part]:
    """Return a pattern's parts; without variables `${…}` is text, as it was before 2012-10-17."""
    parts: list[Part] = []
    end = 0
    for match in (TOKEN if variables else WILDCARD).finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        name = match["variable"]
        if name in LITERAL:
            parts.append(name)
        elif name is not None:
            given = WITH_DEFAULT.fullmatch(name)
            key, default = given.groups() if given else (name, None)
            parts.append(Variable(key.lower(), default, match[0]))
        else:
            parts.append(Wildcard(match[0]) if wildcards else match[0])
    return [*parts, text[end:]]


def without_variables(text: str) -> list[Plain]:
    """Return the parts of a pattern that has wildcards only."""
    return cast("list[Plain]", parse(text, variables=False))


def filled(parts: Iterable[Part], keys: Keys) -> list[Plain] | None:
    """Return parts with a request's values for the variables; None where one has no value.

    A value is text: a star in it is a star.
    """
    plain: list[Plain] = []
    for part in parts:
        if isinstance(part, Variable):
            value = part.value(keys)
            if value is None:
                return None
            plain.append(value)
        else:
            plain.append(part)
    return plain


def is_plain(parts: Sequence[Part]) -> TypeGuard[Sequence[Plain]]:
    """Tell whether no request's values are needed."""
    return not any(isinstance(part, Variable) for part in parts)


def text_of(parts: Iterable[Plain]) -> str:
    """Return the text of parts without wildcards."""
    return "".join(part for part in parts if isinstance(part, str))


# ---------------------------------------------------------------------- ARNs


def segments(parts: Iterable[Part]) -> list[list[Part]]:
    """Return the parts of each of an ARN pattern's segments; a variable's colons part none."""
    found: list[list[Part]] = [[]]
    for part in parts:
        if isinstance(part, str):
            first, *others = part.split(":", SEGMENTS - len(found))
            found[-1].append(first)
            found += [[other] for other in others]
        else:
            found[-1].append(part)
    return found


def resource(parts: Iterable[Part]) -> list[Part]:
    """Return the parts of a Resource's pattern.

    Before the fifth colon a variable is text, and wildcards stay within their segment; but a star
    that ends one may go on beyond its colon.
    """
    groups = segments(parts)
    for number, segment in enumerate(groups):
        kept = [part for part in segment if part != ""]
        if number < SEGMENTS - 1:
            ends = kept[-1:] if kept[-1:] == [Wildcard.STAR] else []
            kept = [inner(part) for part in kept[: len(kept) - len(ends)]] + ends
        segment[:] = kept
    return whole(groups)


def within_segments(groups: list[list[Part]]) -> list[Part]:
    """Return the parts of a pattern whose wildcards stay in the ARN's segments."""
    early, last = groups[: SEGMENTS - 1], groups[SEGMENTS - 1 :]
    return whole([*([INNER.get(part, part) for part in segment] for segment in early), *last])


def whole(groups: Iterable[list[Part]]) -> list[Part]:
    """Return the parts of an ARN's pattern, its segments with colons between them."""
    parts: list[Part] = []
    for segment in groups:
        parts += [":", *segment]
    return parts[1:]


def inner(part: Part) -> Part:
    """Return what a part of an early segment is, where it doesn't end it."""
    return part.text if isinstance(part, Variable) else INNER.get(part, part)


# ---------------------------------------------------------------------- matching


def matcher(parts: Sequence[Plain]) -> Fits:
    """Return what tells whether a text fits one pattern."""
    return matchers([parts])[0]


def matchers(patterns: Iterable[Sequence[Plain]]) -> list[Fits]:
    """Return what tells whether a text fits: one of these, for a text that fits any pattern.

    Between stars, pieces are looked for one after the other, each at its first place. Of patterns
    with anything else one automaton is made, which goes through the text once.
    """
    found: list[Fits] = []
    others: list[Sequence[Plain]] = []
    for parts in patterns:
        wild = set(Wildcard).intersection(parts)
        if not wild:
            found.append(text_of(parts).__eq__)
        elif wild == {Wildcard.STAR}:
            found.append(in_turn(parts))
        else:
            others.append(parts)
    return [*found, Automaton(others).fits] if others else found


def in_turn(parts: Sequence[Plain]) -> Fits:
    """Return what tells whether a text has the pieces between stars, the outer ones at its ends."""
    pieces = [""]
    for part in parts:
        if isinstance(part, str):
            pieces[-1] += part
        else:
            pieces.append("")
    first, *others, last = pieces
    longest = max(pieces, key=len)

    def fits(text: str) -> bool:
        if longest not in text:
            return False  # at once, for most
        begin, end = len(first), len(text) - len(last)
        if begin > end or not text.startswith(first) or not text.endswith(last):
            return False
        for piece in others:
            found = text.find(piece, begin, end)
            if found < 0:
                return False
            begin = found + len(piece)
        return True

    return fits


class Automaton:
    """Reads a text once, for many patterns. (Shift-And: Baeza-Yates, Gonnet 1992.)

    A state has a bit for each place in each pattern: what is before it may have been read. A star
    repeats a character: it stays at its place.
    """

    __slots__ = ("_ends", "_loops", "_read", "_starts", "_takes")

    def __init__(self, patterns: Iterable[Sequence[Plain]]) -> None:
        self._loops = dict.fromkeys((Wildcard.STAR, Wildcard.INNER_STAR), 0)
        self._takes = dict.fromkeys((Wildcard.ONE, Wildcard.INNER_ONE), 0)
        self._starts = self._ends = place = 0
        places: dict[str, list[int]] = defaultdict(list)
        for parts in patterns:
            self._starts |= 1 << place
            for part in parts:
                if isinstance(part, str):
                    for character in part:
                        places[character].append(place)
                        place += 1
                elif part in self._loops:
                    self._loops[part] |= 1 << place
                else:
                    self._takes[part] |= 1 << place
                    place += 1
            self._ends |= 1 << place
            place += 1
        self._read = lru_cache(READERS)(partial(bits, places))

    def fits(self, text: str) -> bool:
        """Tell whether a text is read to the end of a pattern."""
        read, takes, loops = self._read, self._takes, self._loops
        any_one, any_loop = takes[Wildcard.ONE], loops[Wildcard.STAR]
        no_colon, loop = any_one | takes[Wildcard.INNER_ONE], any_loop | loops[Wildcard.INNER_STAR]
        state = self._starts
        for character in text:
            if character == ":":
                state = (state & (read(character) | any_one)) << 1 | state & any_loop
            else:
                state = (state & (read(character) | no_colon)) << 1 | state & loop
            if not state:
                return False  # no need to read on
        return bool(state & self._ends)


def bits(places: Mapping[str, Sequence[int]], character: str) -> int:
    """Return the places at which a character is read, as bits."""
    found = 0
    for place in places.get(character, ()):
        found |= 1 << place
    return found


def like(pattern: str, text: str, keys: Keys | None = None) -> bool:
    """Tell whether a text fits: `*` any characters, `?` one, `${key}` the request's value."""
    parts = filled(parse(pattern, variables=True), keys or {})
    return parts is not None and matcher(parts)(text)


class ResourcePatterns:
    """The patterns of a Resource or NotResource element.

    exact and prefixes: whole names, and what names begin with ("" for `*`). matchers: of what
    else there is. filled_later: patterns that have variables.
    """

    __slots__ = ("exact", "filled_later", "matchers", "prefixes")

    def __init__(self, patterns: Iterable[str], *, variables: bool) -> None:
        self.filled_later: list[list[Part]] = []
        others: list[Sequence[Plain]] = []
        exact, prefixes = set[str](), list[str]()
        for pattern in patterns:
            parts = resource(parse(pattern, variables=variables))
            if not is_plain(parts):
                self.filled_later.append(parts)
            elif not set(Wildcard).intersection(parts):
                exact.add(text_of(parts))
            elif parts[-1] is Wildcard.STAR and not set(Wildcard).intersection(parts[:-1]):
                prefixes.append(text_of(parts))
            else:
                others.append(parts)
        self.exact, self.prefixes = frozenset(exact), tuple(prefixes)
        self.matchers = matchers(others)

    @property
    def simple(self) -> bool:
        """Whether, beside those with variables, there are only whole names and beginnings."""
        return not self.matchers

    def named(self, text: str, keys: Keys) -> bool | None:
        """Tell whether a resource is named; None: not known, a variable has no value."""
        if text in self.exact or text.startswith(self.prefixes):
            return True
        for fits in self.matchers:
            if fits(text):
                return True
        found = [filled(parts, keys) for parts in self.filled_later]
        if any(fits(text) for fits in matchers(parts for parts in found if parts is not None)):
            return True
        return None if None in found else False
