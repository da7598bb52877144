"""Pages of keys with a delimiter: what S3's lists have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cloche.records.prefix import successor

FIRST_BATCH, LARGEST_BATCH = 64, 1001  # rows read at a time where there is a delimiter
BEHIND = 1  # and behind a common prefix, where the next one may follow


class Keyed(Protocol):
    """A row with a key."""

    @property
    def key(self) -> str:
        """The key that lists order by."""


R = TypeVar("R", bound=Keyed)
Fetch = Callable[[str, str | None, int, bool], list[R]]  # start, end, limit, inclusive
# Start, end, limit: the first key of each common prefix, up to the first key that has none (the
# last, then), as many as the limit at the most; None: this can't be asked.
FirstKeys = Callable[[str, str | None, int], list[str] | None]
Place = tuple[str, bool]  # from this key on (True), or after it


@dataclass(slots=True)
class Entries(Generic[R]):
    """One page: rows and common prefixes; `last` is where it ended."""

    rows: list[R] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""
    truncated: bool = False

    @property
    def size(self) -> int:
        """How many entries the page has."""
        return len(self.rows) + len(self.prefixes)

    def full(self, limit: int) -> bool:
        """Tell whether the page has all entries that it may have."""
        return self.size >= limit


def scan(
    fetch: Fetch[R],
    prefix: str,
    delimiter: str,
    after: str,
    limit: int,
    resumed: Sequence[R] = (),
    first_keys: FirstKeys | None = None,
) -> Entries[R]:
    """Return up to `limit` entries after a key: rows, and prefixes up to the next delimiter.

    The rows of a common prefix are not read: the scan goes on at the first key behind it. Where
    `first_keys` is given, it finds the common prefixes that follow one another.
    `resumed` are rows of the key `after` itself that the page before did not show.
    """
    found: Entries[R] = Entries()
    if limit == 0:
        return found
    for row in resumed:
        if found.full(limit):
            found.truncated = True
            return found
        found.rows.append(row)
        found.last = row.key
    end = successor(prefix)
    place: Place | None = (prefix, True)
    if after and after >= prefix:
        place = (after, False)
    rolled = common(after, prefix, delimiter) if after.startswith(prefix) else None
    if rolled is not None:  # the page before ended in this prefix: go on behind it
        place = behind(rolled)
    batch = FIRST_BATCH if delimiter else limit + 1
    while place is not None and not found.truncated:
        rows = fetch(place[0], end, batch, place[1])
        place = add(found, rows, prefix, delimiter, limit)
        if place is not None and place[1]:
            batch = BEHIND
            left = limit - found.size + 1
            keys = first_keys(place[0], end, left) if first_keys is not None else None
            if keys is not None:
                place = add_prefixes(found, keys, prefix, delimiter, limit)
        elif len(rows) < batch:
            break
        else:
            batch = min(batch * 2, LARGEST_BATCH)
    return found


def add(found: Entries[R], rows: list[R], prefix: str, delimiter: str, limit: int) -> Place | None:
    """Add rows to a page; return where to read on, None when there is nothing more.

    That is behind a common prefix, or after the last row.
    """
    for row in rows:
        if found.full(limit):
            found.truncated = True
            return None
        rolled = common(row.key, prefix, delimiter)
        if rolled is not None:
            found.prefixes.append(rolled)
            found.last = rolled
            return behind(rolled)
        found.rows.append(row)
        found.last = row.key
    return (rows[-1].key, False) if rows else None


def add_prefixes(
    found: Entries[R], keys: list[str], prefix: str, delimiter: str, limit: int
) -> Place | None:
    """Add the common prefixes of their first keys to a page; return where to read on, None when
    there is nothing more. That is from the first key that has no common prefix.
    """
    for key in keys:
        if found.full(limit):
            found.truncated = True
            return None
        rolled = common(key, prefix, delimiter)
        if rolled is None:
            return key, True
        found.prefixes.append(rolled)
        found.last = rolled
    return None


def behind(prefix: str) -> Place | None:
    """Return the place of the first key above all with a prefix."""
    start = successor(prefix)
    return None if start is None else (start, True)


def common(key: str, prefix: str, delimiter: str) -> str | None:
    """Return the key up to the first delimiter behind the prefix; None: it has none there."""
    at = key.find(delimiter, len(prefix)) if delimiter else -1
    return key[: at + len(delimiter)] if at >= 0 else None
