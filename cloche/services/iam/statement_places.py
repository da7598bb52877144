"""Where the statements of a policy stand in its text, as simulations say it.

As IAM counts them: a statement begins behind the bracket or comma before it, and ends behind its
own brace; lines and columns from 1.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache

SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
KEPT = 64  # texts: a page of results asks about the same few again and again
Span = tuple[int, int]


@lru_cache(maxsize=KEPT)
def places(text: str) -> list[dict[str, dict[str, int]]]:
    """Return each statement's StartPosition and EndPosition; the text is a policy."""
    return [
        {"StartPosition": position(text, begin), "EndPosition": position(text, end)}
        for begin, end in spans(text)
    ]


def spans(text: str) -> list[Span]:
    """Return where the statements of a policy begin and end."""
    for name, begin in members(text):
        if name != "Statement":
            continue
        first = skip(text, begin)
        if text[first] == "[":
            return list(entries(text, first + 1))
        return [(begin, DECODER.raw_decode(text, first)[1])]
    return []


def members(text: str) -> Iterator[tuple[str, int]]:
    """Yield the names of an object's members, and where their values begin."""
    place = skip(text, 0) + 1
    while text[skip(text, place)] == '"':
        name, end = DECODER.raw_decode(text, skip(text, place))
        begin = skip(text, end) + 1
        yield name, begin
        place = skip(text, DECODER.raw_decode(text, skip(text, begin))[1])
        if text[place] != ",":
            return
        place += 1


def entries(text: str, place: int) -> Iterator[Span]:
    """Yield where the entries of a list begin and end; `place` is behind its bracket."""
    while text[skip(text, place)] != "]":
        end = DECODER.raw_decode(text, skip(text, place))[1]
        yield place, end
        place = skip(text, end)
        if text[place] == "]":
            return
        place += 1


def skip(text: str, place: int) -> int:
    """Return where the next character is that is no white space."""
    found = SPACE.match(text, place)
    assert found is not None
    return found.end()


def position(text: str, place: int) -> dict[str, int]:
    """Return the line and the column of a place in a text."""
    return {"Line": text.count("\n", 0, place) + 1, "Column": place - text.rfind("\n", 0, place)}
