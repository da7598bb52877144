"""From a process's output to its log file: lines in, records out."""

from __future__ import annotations

import contextlib
import os
import time

from . import namespaces

LONGEST_LINE = 256 * 1024  # bytes: CloudWatch Logs' largest event; longer lines are split
NOTE = 4096  # bytes that are kept free on the disk for what we say ourselves
TAIL = 2 * LONGEST_LINE
PARTIAL_AFTER_S = 1.0  # an unfinished line is written when nothing followed for so long


class Splitter:
    r"""Splits bytes into lines: at \n, at \r (progress bars) and at LONGEST_LINE."""

    def __init__(self) -> None:
        self.rest = b""
        self.after_return = False  # a \n that follows a \r is the same line end

    def feed(self, data: bytes) -> list[bytes]:
        r"""Return the lines that `data` completes; empty ones only where they ended in \n."""
        if self.after_return and data.startswith(b"\n"):
            data = data[1:]
            self.after_return = False
        if not data:
            return []
        self.after_return = data.endswith(b"\r")
        whole = (self.rest + data).replace(b"\r\n", b"\n")
        *ended, self.rest = whole.split(b"\n")
        if b"\r" not in whole and len(whole) <= LONGEST_LINE:
            return ended
        lines: list[bytes] = []
        for line in ended:
            lines += visible(line) or [b""]
        if b"\r" in self.rest:
            *done, self.rest = self.rest.split(b"\r")
            for part in done:
                lines += visible(part)
        while len(self.rest) > LONGEST_LINE:
            at = character_start(self.rest, LONGEST_LINE)
            lines.append(self.rest[:at])
            self.rest = self.rest[at:]
        return lines

    def flush(self) -> list[bytes]:
        """Return the unfinished line, if there is one."""
        rest, self.rest = self.rest, b""
        return [rest] if rest else []


def visible(line: bytes) -> list[bytes]:
    """Return what a terminal showed, one after the other, in a line with returns; not too long."""
    shown = [part for part in line.split(b"\r") if part]
    pieces: list[bytes] = []
    for part in shown:
        while len(part) > LONGEST_LINE:
            at = character_start(part, LONGEST_LINE)
            pieces.append(part[:at])
            part = part[at:]
        pieces.append(part)
    return pieces


def character_start(data: bytes, at: int) -> int:
    """Return the start of the UTF-8 character at `at`, so that a split cuts none in two."""
    for back in range(4):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


class LogWriter:
    """Appends records `<milliseconds since 1970> <text>` to a file; a full disk loses lines only.

    A line that is written in parts is several records: `<milliseconds>+` says that its line was not
    finished then, `<milliseconds>&` that it goes on with the unfinished one before, `&+` both.

    While nothing can be written lines are counted; once there is space again, or at the end in
    place of the last records, one says how many were lost, and why. A file as long as its limit
    takes no more.
    """

    def __init__(self, path: str, limit_mib: int = 0) -> None:
        self.path, self.limit_mib = path, limit_mib
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o644)
        self.lost = 0
        self.why = ""
        self.beyond = 0  # lines that came when the log had reached its limit
        namespaces.allocate(self.fd, os.fstat(self.fd).st_size + NOTE)

    def append(
        self, lines: list[bytes], *, continues: bool = False, unfinished: bool = False
    ) -> None:
        """Write the lines with the time that it is now; never raises.

        continues: the first goes on with the record before. unfinished: the last is a part.
        """
        if not lines:
            return
        if self.limit_mib and os.fstat(self.fd).st_size >= self.limit_mib << 20:
            if not self.beyond:
                self.note(f"This log has reached {self.limit_mib} MiB: what follows is not kept.")
            self.beyond += len(lines)
            return
        continues = continues and not self.lost  # a note comes between
        if not self.confess():
            self.lost += len(lines)
            return
        now = stamp()
        try:
            b"\n".join(lines).decode()
        except UnicodeDecodeError:
            lines = [line.decode("utf-8", "replace").encode() for line in lines]
        if continues or unfinished:
            marks = [b""] * len(lines)
            marks[0] += b"&" if continues else b""
            marks[-1] += b"+" if unfinished else b""
            before = now[:-1]
            text = b"\n".join(b"%s%s %s" % (before, *each) for each in zip(marks, lines))  # noqa: B905
        else:
            text = now + (b"\n" + now).join(lines)
        self.lost = self._write(text + b"\n")

    def note(self, text: str) -> None:
        """Write a record of our own, whatever the limit; on a full disk it is lost."""
        self.lost += self._write(stamp() + f"[cloche] {text}\n".encode())

    def confess(self, *, insist: bool = False) -> bool:
        """Write how many lines were lost, if any were; tell whether that worked.

        insist: in place of the last records, if there is no space for more.
        """
        if self.lost and self._write(self._loss(self.lost)):
            return insist and self._overwrite()
        self.lost = 0
        return True

    def _loss(self, lines: int) -> bytes:
        return stamp() + f"[cloche] {lines} log lines were lost here: {self.why}\n".encode()

    def _overwrite(self) -> bool:
        """Give the last records up for the one that says how many were lost."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                tail = os.pread(descriptor, TAIL, max(0, size - TAIL))
                # Digits more than now: as the lines that give way are counted, too.
                at = tail.rfind(b"\n", 0, max(0, len(tail) - len(self._loss(self.lost)) - 8)) + 1
                note = self._loss(self.lost + tail.count(b"\n", at))
                os.pwrite(descriptor, note, size - len(tail) + at)
                os.ftruncate(descriptor, size - len(tail) + at + len(note))
            finally:
                os.close(descriptor)
        self.lost = 0
        return True

    def _write(self, data: bytes) -> int:
        """Write records; return how many were lost. No torn one stays."""
        size = os.fstat(self.fd).st_size
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, data[written:] if written else data)
        except OSError as error:
            self.why = os.strerror(error.errno or 0)
            whole = data.rfind(b"\n", 0, written) + 1
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, size + whole)
            return data.count(b"\n", whole)
        return 0

    def close(self) -> None:
        """Make sure that all is on the disk."""
        with contextlib.suppress(OSError):  # what the disk refuses to sync it refuses to tell
            os.fsync(self.fd)
        os.close(self.fd)


class Pump:
    """Carries one process's output to its log."""

    def __init__(self, log: LogWriter) -> None:
        self.log = log
        self.splitter = Splitter()
        self.flush_at: float | None = None  # monotonic
        self.in_line = False  # the last record is the beginning of a line that goes on
        self.finished = False

    def feed(self, data: bytes, now: float) -> None:
        """Take what the process wrote."""
        if self.in_line and data.startswith(b"\r"):
            self.in_line = False  # a progress bar begins again: another line
        lines = self.splitter.feed(data)
        self._append(lines)
        self.flush_at = now + PARTIAL_AFTER_S if self.splitter.rest else None

    def tick(self, now: float) -> None:
        """Write an unfinished line that waited long enough."""
        if self.flush_at is not None and now >= self.flush_at:
            self._append(self.splitter.flush(), unfinished=True)
            self.flush_at = None

    def _append(self, lines: list[bytes], *, unfinished: bool = False) -> None:
        if lines:
            self.log.append(lines, continues=self.in_line, unfinished=unfinished)
            self.in_line = unfinished

    def note(self, text: str) -> None:
        """Write a record of our own after all that the process wrote."""
        self._append(self.splitter.flush())
        self.log.note(text)

    def finish(self, *, insist: bool = False) -> bool:
        """Write what is left and close the log; False: not yet, the disk is full (try again).

        insist: it is closed all the same, and says what was lost in place of the last records.
        """
        if not self.finished:
            self._append(self.splitter.flush())
            self.flush_at = None
            if self.log.beyond:
                self.log.note(f"{self.log.beyond} lines were not kept.")
                self.log.beyond = 0
            if not self.log.confess(insist=insist):
                return False
            self.finished = True
            self.log.close()
        return True


def stamp() -> bytes:
    """Return how a record that is written now begins."""
    return b"%d " % (time.time_ns() // 1_000_000)
