"""Log files: a line a record, `<milliseconds since 1970> <text>`, appended while we read.

A record counts once its line is complete. What PutLogEvents sends may have line breaks, and another
time than that of its arrival: such a line is `<milliseconds>j [<ingested, ms>, "<text>"]`.

Lines are in order of time, so a time is found by bisection; should a clock have stepped back,
records near the step may be missed by time, never by position. Positions are byte offsets of lines.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = 64 * 1024  # bytes read at once while looking for a line's ends
READ = 1024 * 1024


# Named tuples: a page makes 20,000 of them, and frozen dataclasses take three times as long.
class LogRecord(NamedTuple):
    """One line of a log, or a part of one. `ingested_ms`: when it reached the log."""

    at_ms: int
    text: str
    ingested_ms: int
    continues: bool = False  # the line of an unfinished record before
    unfinished: bool = False  # its line had no end when it was written


class PlacedRecord(NamedTuple):
    """A record and where its line begins and ends (past the line break)."""

    record: LogRecord
    start: int
    end: int


def read_from(path: Path, offset: int, limit_bytes: int = READ) -> tuple[list[LogRecord], int]:
    """Return the complete records from `offset` on, and the offset to go on from.

    About `limit_bytes` at once: there is more while the offset moves. A file that is not there is
    empty.
    """
    try:
        with LogFile(path) as log:
            placed = list(log.forward(offset, log.size, limit_bytes=limit_bytes))
    except FileNotFoundError:
        return [], offset
    return [place.record for place in placed], placed[-1].end if placed else offset


def read_lines(
    path: Path, offset: int, *, whole: bool, limit_bytes: int = READ
) -> tuple[list[LogRecord], int]:
    """Return the complete lines from `offset` on, their parts joined, and the offset to go on from.

    A line that is not finished yet is left for later; `whole`: it is as long as it will ever be.
    """
    try:
        with LogFile(path) as log:
            placed = list(log.forward(offset, log.size, limit_bytes=limit_bytes))
            more = bool(placed) and placed[-1].end < log.size
    except FileNotFoundError:
        return [], offset
    lines: list[LogRecord] = []
    open_from: int | None = None  # where the last line began, if it is not finished
    for place in placed:
        record = place.record
        if record.continues and open_from is not None:
            before = lines.pop()
            record = record._replace(text=before.text + record.text)
        else:
            open_from = place.start
        if not record.unfinished:
            open_from = None
        lines.append(record)
    end = placed[-1].end if placed else offset
    if open_from is None or (whole and not more):
        return lines, end
    if open_from == offset and more:  # longer than what is read at once
        return lines, end
    return lines[:-1], open_from


def parse(line: bytes) -> LogRecord:
    """Return the record of a line; what is none (by no fault of ours) keeps its text at time 0."""
    stamp, _, rest = line.partition(b" ")
    try:
        if stamp.endswith(b"j"):
            ingested_ms, text = json.loads(rest)
            return LogRecord(int(stamp[:-1]), text, ingested_ms)
        plain = stamp.rstrip(b"&+")
        at_ms = int(plain)
        if plain != stamp:
            text = rest.decode("utf-8", "replace")
            return LogRecord(at_ms, text, at_ms, b"&" in stamp, b"+" in stamp)
        return LogRecord(at_ms, rest.decode("utf-8", "replace"), at_ms)
    except ValueError:
        return LogRecord(0, line.decode("utf-8", "replace"), 0)


def format_record(record: LogRecord) -> bytes:
    """Return the line of a record that PutLogEvents brought."""
    return f"{record.at_ms}j {json.dumps([record.ingested_ms, record.text])}\n".encode()


class LogFile:
    """A log file opened for reading, as long as it was then: `size` is past the last whole line."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        status = os.fstat(self.fd)
        self.modified_ms = status.st_mtime_ns // 1_000_000
        self.size = self._line_start(status.st_size)

    def __enter__(self) -> "LogFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def first(self) -> LogRecord | None:
        """Return the first record, or None."""
        return next((place.record for place in self.forward(0, self.size)), None)

    def last(self) -> LogRecord | None:
        """Return the last record, or None."""
        if self.size == 0:
            return None
        begin = self._line_start(self.size - 1)
        return parse(os.pread(self.fd, self.size - 1 - begin, begin))

    def forward(
        self, start: int, end: int, *, limit_bytes: int | None = None
    ) -> Iterator[PlacedRecord]:
        """Yield the records between two offsets, oldest first.

        With `limit_bytes`: until so many bytes were read, but one record at the least.
        """
        stop = end if limit_bytes is None else min(end, start + limit_bytes)
        place, rest = start, b""
        while place < end:
            at = place + len(rest)
            block = os.pread(self.fd, min(READ, end - at, max(BLOCK, stop - at)), at)
            if not block:
                return
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                after = place + len(line) + 1
                yield PlacedRecord(parse(line), place, after)
                place = after
                if place >= stop:
                    return

    def backward(
        self, end: int, start: int, *, limit_bytes: int | None = None
    ) -> Iterator[PlacedRecord]:
        """Yield the records between two offsets, newest first.

        With `limit_bytes`: until about so many bytes were read, but one record at the least.
        """
        stop = start if limit_bytes is None else max(start, end - limit_bytes)
        while end > stop:
            begin = max(start, self._line_start(max(0, end - BLOCK)))
            yield from reversed(list(self.forward(begin, end)))
            end = begin

    def at_or_after(self, at_ms: int) -> int:
        """Return the offset of the first record that is not older than `at_ms`."""
        low, high = 0, self.size
        while low < high:
            start = self._line_start((low + high) // 2)
            place = next(self.forward(start, self.size, limit_bytes=1))
            if place.record.at_ms < at_ms:
                low = place.end
            else:
                high = place.start
        return low

    def after(self, offset: int) -> int:
        """Return where the record ends that begins at `offset`."""
        return next((place.end for place in self.forward(offset, self.size)), self.size)

    def is_start(self, offset: int) -> bool:
        """Tell whether a line begins, or the file ends, at `offset`."""
        return 0 <= offset <= self.size and self._line_start(offset) == offset

    def _line_start(self, offset: int) -> int:
        """Return where the line begins that holds the byte at `offset`."""
        while offset > 0:
            begin = max(0, offset - BLOCK)
            found = os.pread(self.fd, offset - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            offset = begin
        return 0
