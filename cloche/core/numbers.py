"""Numbers as clients and user code write them: text with bounds, read in one place.

Python's own `int` and `float` take too much (`1_0`, ` 7 `, digits of other scripts, `0x` with base
16, `nan`), and refuse a text of more than 4,300 digits with an error that few expect.
"""

import math
import re

LONGEST = 100  # characters of a number; 64 bits have 20, and a float needs 24
INTEGER = re.compile(r"[+-]?[0-9]+")
DIGITS = re.compile(r"[0-9]+")
REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# How AWS spells the three that have no digits.
SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def integer(text: str) -> int:
    """Return the integer that a text spells; ValueError when it is none, or too long."""
    if len(text) > LONGEST or not INTEGER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not an integer")
    return int(text)


def natural(text: str, most: int) -> int:
    """Return what ASCII digits count, of any length, and `most` when that is less."""
    if not DIGITS.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a number")
    digits = text.lstrip("0")
    return min(int(digits or "0"), most) if len(digits) <= LONGEST else most


def real(text: str) -> float:
    """Return the finite number that a text spells; ValueError when it is none."""
    if len(text) > LONGEST or not REAL.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


def shown(text: str) -> str:
    """Return a text as an error may repeat it."""
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
