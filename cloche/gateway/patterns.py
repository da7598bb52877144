"""The models' regular expressions, which are Java's, as Python's."""

import logging
import re
import sys
import unicodedata
from functools import cache
from itertools import pairwise

logger = logging.getLogger("cloche.gateway")

# https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/util/regex/Pattern.html
ASCII_CLASSES = {
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Print": r"\x20-\x7e",
    "Graph": r"\x21-\x7e",
    "Punct": r"!-/:-@\[-`{-~",
    "Space": r"\t-\r\x20",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
}
PROPERTY = re.compile(r"\\p\{(\w+)\}")
LAST_ASSIGNED = 0x32400  # of planes 0 to 3; beyond lie private use and the selectors below
SELECTORS = "\U000e0100-\U000e01ef"


@cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a model's pattern; None when Python has no equal, which is logged once."""
    try:
        return re.compile(translate(pattern), re.ASCII)
    except (re.error, KeyError) as error:
        logger.warning("values are not checked against the pattern %s: %s", pattern, error)
        return None


def translate(pattern: str) -> str:
    """Return a Java pattern in Python's syntax; KeyError for an unknown \\p class."""
    pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    pattern = pattern.replace(r"\z", r"\Z")
    # Java lets the end of the text be repeated.
    pattern = re.sub(r"\$\{\d+,\d+\}", "$", pattern)
    # After a class such as \w a hyphen is itself.
    pattern = re.sub(r"(\\[wdsWDS])-(?!\])", r"\1\\-", pattern)
    # A bracket within brackets is itself in none of the models' patterns but as \[.
    out, at, inside = "", 0, False
    for match in PROPERTY.finditer(pattern):
        before = pattern[at : match.start()]
        inside = ends_inside(before, inside)
        ranges = ranges_of(match.group(1))
        out += before + (ranges if inside else f"[{ranges}]")
        at = match.end()
    return out + pattern[at:]


def ends_inside(text: str, inside: bool) -> bool:
    """Return whether a piece of a pattern ends within a character class."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "[":
            inside = True
        elif character == "]":
            inside = False
    return inside


def ranges_of(name: str) -> str:
    """Return a Java class or Unicode category as the inside of a character class."""
    if name in ASCII_CLASSES:
        return ASCII_CLASSES[name]
    found = [ranges for category, ranges in categories().items() if category.startswith(name)]
    if not found:
        raise KeyError(f"\\p{{{name}}}")
    return "".join(found) + (SELECTORS if name in ("M", "Mn") else "")


@cache
def categories() -> dict[str, str]:
    """Return Unicode's categories, each as the inside of a character class."""
    starts: dict[str, list[tuple[int, int]]] = {}
    edges = [0]
    of = [unicodedata.category(chr(code)) for code in range(min(LAST_ASSIGNED, sys.maxunicode))]
    edges += [code for code in range(1, len(of)) if of[code] != of[code - 1]]
    for first, after in pairwise([*edges, len(of)]):
        starts.setdefault(of[first], []).append((first, after - 1))
    return {
        category: "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
        for category, ranges in starts.items()
    }
