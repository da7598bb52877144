"""Looking through a tar archive that is not trusted, as a stream: nothing is unpacked.

The standard library's reader takes quadratic time and more for some headers (CVE-2024-6232), holds
what it reads of them, and keeps each member. This one takes time linear in what it reads, and
knows what common archivers write: ustar, GNU's long names, pax's paths and sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512
LONGEST_HEADER = 64 << 10  # bytes of a long name, or of pax records
CHUNK = 1 << 20


class Readable(Protocol):
    """Whatever can be read."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""


class Limited:
    """A stream that ends after so many bytes."""

    def __init__(self, stream: Readable, left: int) -> None:
        self.stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        """Return the next bytes; EOFError where there are fewer."""
        data = self.stream.read(min(size, self.left))
        self.left -= len(data)
        if len(data) < size:
            raise EOFError
        return data

    def skip(self, size: int) -> None:
        """Go on behind the next bytes."""
        while size > 0:
            size -= len(self.read(min(size, CHUNK)))


@dataclass(slots=True)
class Member:
    """A regular file in an archive; its content can be had once, before the next member."""

    name: str
    size: int
    stream: Limited
    left: int

    def content(self, longest: int) -> bytes | None:
        """Return what the file holds; None when that is too much."""
        if self.size > longest:
            return None
        data = self.stream.read(self.left)
        self.left = 0
        return data


def members(stream: Readable, most: int) -> Iterator[Member]:
    """Yield an archive's regular files; it ends where the archive does, or is none, or after
    `most` bytes of it.
    """
    limited = Limited(stream, most)
    try:
        yield from walked(limited)
    except (EOFError, ValueError):
        return


def walked(stream: Limited) -> Iterator[Member]:
    """Yield regular files; EOFError, ValueError where the archive can't be read on."""
    said: dict[bytes, bytes] = {}  # of the next member, by headers before its own
    while any(header := stream.read(BLOCK)):
        if sum(header[:148]) + sum(header[156:]) + 8 * 0x20 != number(header[148:156]):
            raise ValueError("no header")
        size, kind = number(header[124:136]), header[156:157]
        if kind in b"LKxg":
            said |= told(kind, stream, size)
            continue
        if (size := int(said.get(b"size", size))) < 0:
            raise ValueError("no size")
        regular = kind in (b"0", b"\0", b"7")
        name = said.get(b"path") or full_name(header)
        said = {}
        # What is no regular file has no content, but for kinds that we do not know.
        member = Member(name.decode("utf-8", "replace"), size, stream, size)
        if regular:
            yield member
        if regular or kind not in b"123456":
            stream.skip(member.left + -size % BLOCK)


def told(kind: bytes, stream: Limited, size: int) -> dict[bytes, bytes]:
    """Return what a header says of the member behind it."""
    if not 0 <= size <= LONGEST_HEADER:
        raise ValueError("no header")
    data = stream.read(size)
    stream.skip(-size % BLOCK)
    if kind == b"L":
        return {b"path": data.rstrip(b"\0")}
    return records(data) if kind == b"x" else {}


def records(data: bytes) -> dict[bytes, bytes]:
    """Return pax records: `LENGTH KEYWORD=VALUE` and an end of line, one behind the other."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.index(b" ", at, at + 8)
        end = at + int(data[at:space])
        if not space < end <= len(data):
            raise ValueError("no record")
        keyword, _, value = data[space + 1 : end - 1].partition(b"=")
        if keyword in (b"path", b"size"):
            found[keyword] = value
        at = end
    if len(found.get(b"size", b"")) > 20:
        raise ValueError("no size")
    return found


def full_name(header: bytes) -> bytes:
    """Return the name in a header, with ustar's prefix."""
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def number(field: bytes) -> int:
    """Return a number of a header: octal, or GNU's binary form; ValueError when it is none."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0")[0].strip() or b"0", 8)
