"""Which modules public scripts import most: `imports_of_scripts.txt` says how it was counted."""

from collections import Counter
from pathlib import Path

LIST = Path(__file__).with_name("imports_of_scripts.txt")


def counted() -> Counter[str]:
    """Return how many scripts import each module."""
    lines = (line.split() for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return Counter(module for line in lines for module in set(line[2:]))


def most(number: int) -> list[str]:
    """Return those that most scripts import, then by name."""
    return [m for m, _n in sorted(counted().items(), key=lambda c: (-c[1], c[0]))[:number]]
