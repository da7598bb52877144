"""Reads tar archives (ustar, GNU, pax; gzip or plain) whatever they hold, in bounded memory.

Names stay bytes. Python's `tarfile` reads a header of any length into memory, and what it makes of
names has had holes; here a header has 64 KiB at most, and nothing is written anywhere.
Sparse files are refused: no tool makes them unasked.
"""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Readable(Protocol):
        """Whatever can be read."""

        def read(self, size: int, /) -> bytes:
            """Return at most so many of the next bytes; none at the end."""


BLOCK = 512
PIECE = 256 * 1024  # bytes read, or unpacked, at a time
LONGEST_HEADER = 64 * 1024  # bytes of a pax header or of a GNU long name
HEADERS = 32  # of these for one entry
MEMBER = 4096  # bytes that each part of a gzip counts for: many that hold nothing cost time
LAST_WORDS = 1 << 20  # bytes after the end of the archive, whose checksum is at their end
GZIP = 16 + zlib.MAX_WBITS
FILE, FOLDER, SYMLINK, HARDLINK, OTHER = "file", "folder", "symlink", "hardlink", "other"
KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"5": FOLDER, b"2": SYMLINK, b"1": HARDLINK,
}  # fmt: skip
SPECIAL = {b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file"}


class BadArchive(Exception):
    """An archive that can't, or may not, be unpacked; the text says why."""


class ArchiveEntry:
    """One file, folder or link of an archive."""

    __slots__ = ("kind", "mode", "mtime", "name", "size", "special", "target")

    def __init__(self, head: bytes) -> None:
        flag = head[156:157]
        self.name = text(head[0:100])
        if head[257:263] == b"ustar\0" and (prefix := text(head[345:500])):
            self.name = prefix + b"/" + self.name
        self.kind = KINDS.get(flag, OTHER)
        if flag == b"\0" and self.name.endswith(b"/"):
            self.kind = FOLDER  # as before POSIX
        self.special = SPECIAL.get(flag, f"of the unknown type {flag!r}")
        self.mode = number(head[100:108])
        self.size = number(head[124:136])
        self.mtime: float = number(head[136:148])
        self.target = text(head[157:257])


class Unpacked:
    """The bytes of an archive, unpacked if it is gzip; BadArchive once there are too many."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self.stream, self.limit = stream, limit
        self.spent = self.taken = 0
        self.packed = self.more()
        self.unzip = zlib.decompressobj(GZIP) if self.packed[:2] == b"\x1f\x8b" else None
        self.piece, self.at = b"", 0

    def some(self, most: int) -> bytes:
        """Return some of the next bytes, at most so many; none at the end."""
        if self.at == len(self.piece):
            self.piece, self.at = self.next_piece(), 0
            self.spend(len(self.piece))
        found = self.piece[self.at : self.at + most]
        self.at += len(found)
        return found

    def more(self) -> bytes:
        """Return the next bytes of the archive; BadArchive when there are too many."""
        data = self.stream.read(PIECE)
        self.taken += len(data)
        if self.taken > self.limit + PIECE:
            raise BadArchive(f"it has more than {self.limit} bytes")
        return data

    def spend(self, size: int) -> None:
        """Count bytes; BadArchive when there are too many."""
        self.spent += size
        if self.spent > self.limit:
            raise BadArchive(f"it holds more than {self.limit} bytes")

    def exactly(self, size: int) -> bytes:
        """Return the next bytes; fewer at the end only."""
        found = self.some(size)
        while len(found) < size and (more := self.some(size - len(found))):
            found += more
        return found

    def next_piece(self) -> bytes:
        """Return the next bytes, unpacked."""
        if self.unzip is None:
            piece, self.packed = self.packed, b""
            return piece or self.more()
        while True:
            if not self.packed:
                self.packed = self.more()
            if self.unzip.eof:
                self.spend(MEMBER)
                if not self.packed.startswith(b"\x1f\x8b"):
                    return b""  # padding, or what gzip(1) ignores too
                self.unzip = zlib.decompressobj(GZIP)  # another part
            elif not self.packed:
                raise BadArchive("it is truncated")
            try:
                piece = self.unzip.decompress(self.packed, PIECE)
            except zlib.error as error:
                raise BadArchive(f"it is not a gzip file: {error}") from None
            self.packed = self.unzip.unconsumed_tail or self.unzip.unused_data
            if piece:
                return piece


class ArchiveReader:
    """Goes through an archive, entry by entry."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self.bytes = Unpacked(stream, limit)
        self.left = 0  # of the current file
        self.padding = 0
        self.everywhere: dict[bytes, bytes] = {}  # pax: said once for all that follow

    def entries(self) -> Iterator[ArchiveEntry]:
        """Yield every entry; the content of a file is to be had until the next one."""
        first = True
        while (entry := self.next_entry(first=first)) is not None:
            first = False
            if entry.kind == FILE:
                self.left, self.padding = entry.size, -entry.size % BLOCK
            elif entry.kind == OTHER:
                raise BadArchive(f"{shown(entry.name)} is {entry.special}")
            yield entry
            for _ in self.content():
                pass
            if len(self.bytes.exactly(self.padding)) < self.padding:
                raise BadArchive("it is truncated")
            self.padding = 0
        self.finish()

    def content(self) -> Iterator[bytes]:
        """Yield what is left of the current file."""
        while self.left:
            piece = self.bytes.some(min(self.left, PIECE))
            if not piece:
                raise BadArchive("it is truncated")
            self.left -= len(piece)
            yield piece

    def next_entry(self, *, first: bool) -> ArchiveEntry | None:
        """Return the next entry, with what the headers before it say; None at the end."""
        long: dict[bytes, bytes] = {}
        said: dict[bytes, bytes] = {}
        for _ in range(HEADERS):
            head = self.bytes.exactly(BLOCK)
            if not head and not first:
                return None
            if len(head) == BLOCK and not any(head):
                return None
            check(head)
            flag = head[156:157]
            if flag in (b"L", b"K"):
                long[flag] = self.header(head).split(b"\0", 1)[0]
            elif flag in (b"x", b"X"):
                said |= pairs(self.header(head))
            elif flag == b"g":
                self.everywhere |= pairs(self.header(head))
                if sum(len(k) + len(v) for k, v in self.everywhere.items()) > LONGEST_HEADER:
                    raise BadArchive(f"a header of more than {LONGEST_HEADER} bytes")
            else:
                return completed(ArchiveEntry(head), long, self.everywhere | said)
        raise BadArchive(f"more than {HEADERS} headers for one entry")

    def header(self, head: bytes) -> bytes:
        """Return the text that a header stands for."""
        size = number(head[124:136])
        if not 0 <= size <= LONGEST_HEADER:
            raise BadArchive(f"a header of more than {LONGEST_HEADER} bytes")
        data = self.bytes.exactly(size + -size % BLOCK)
        if len(data) < size:
            raise BadArchive("it is truncated")
        return data[:size]

    def finish(self) -> None:
        """Read to the end, where gzip has its checksum, unless it is far."""
        left = LAST_WORDS
        while left > 0 and (piece := self.bytes.some(left)):
            left -= len(piece)


def completed(
    entry: ArchiveEntry, long: dict[bytes, bytes], said: dict[bytes, bytes]
) -> ArchiveEntry:
    """Return an entry with what its headers say."""
    entry.name = said.get(b"path", long.get(b"L", entry.name))
    entry.target = said.get(b"linkpath", long.get(b"K", entry.target))
    if any(key.startswith(b"GNU.sparse.") for key in said):
        entry.kind, entry.special = OTHER, "a sparse file"
    try:
        entry.size = int(said.get(b"size", b"%d" % entry.size))
        entry.mtime = float(said.get(b"mtime", b"%d" % entry.mtime))
    except ValueError:
        raise BadArchive("an invalid number in a header") from None
    if entry.size < 0:
        raise BadArchive("an invalid number in a header")
    return entry


def check(head: bytes) -> None:
    """BadArchive unless it is a header, by its checksum (some programs sum signed bytes)."""
    if len(head) < BLOCK:
        raise BadArchive("it is not a tar archive, or it is truncated")
    without = head[:148] + b" " * 8 + head[156:]
    plain = sum(without)
    try:
        told = int(head[148:156].strip(b" \0"), 8)
    except ValueError:
        told = -1
    if told != plain and told != plain - 256 * sum(byte > 127 for byte in without):
        raise BadArchive("it is not a tar archive, or it is damaged")


def text(field: bytes) -> bytes:
    """Return what is before the first NUL."""
    return field.split(b"\0", 1)[0]


def number(field: bytes) -> int:
    """Return a header's number: octal, or, where that is too short, base 256."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    try:
        return int(text(field).strip() or b"0", 8)
    except ValueError:
        raise BadArchive("an invalid number in a header") from None


def pairs(data: bytes) -> dict[bytes, bytes]:
    """Return what a pax header says: `LENGTH KEY=VALUE` and a line break, again and again."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space]
        length = int(digits) if space > 0 and digits.isdigit() else 0
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or at + length > len(data):
            raise BadArchive("an invalid pax header")
        found[key] = value[:-1]
        at += length
    return found


def shown(name: bytes) -> str:
    """Return a name for a sentence."""
    said = name.decode("utf-8", "replace")
    return repr(said if len(said) <= 100 else f"{said[:100]}…")
