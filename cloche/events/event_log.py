"""The files that hold events: a line of JSON each, in the order they ended.

A thread of its own writes what came in the last moment at once, and syncs it. The oldest file goes
when all together are larger than they may be. A line that a crash tore is passed over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from cloche.events.event import Event

logger = logging.getLogger("cloche.events")

MOST_BYTES = 1 << 30  # of all files
FILE_BYTES = 16 << 20  # of one: a new one is begun
BATCH_S = 0.2  # how long a batch waits for more
WAITING = 100_000  # events not written yet; further ones are counted, and the log says so
BLOCK = 1 << 18  # bytes read at a time, from the end
SUFFIX = ".jsonl"
RETRY_S = 1.0

ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Event)


class Sink(Protocol):
    """Takes events, from any thread."""

    def add(self, event: Event) -> None:
        """Keep an event; returns at once."""


class Nowhere:
    """Keeps nothing: for tests of what stands before it."""

    def add(self, event: Event) -> None:
        """Forget the event."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which events are wanted: those between two times (milliseconds, both included) that fit."""

    fits: Callable[[Event], bool]
    since_ms: int = 0
    until_ms: int = 1 << 62
    needle: bytes = b""  # what the line must hold: a cheap first look


class EventLog:
    """Keeps events in a folder. `start` before the first `add`; `close` writes what is left."""

    def __init__(
        self, folder: Path, *, most_bytes: int = MOST_BYTES, file_bytes: int = FILE_BYTES
    ) -> None:
        self.folder, self.most_bytes, self.file_bytes = folder, most_bytes, file_bytes
        self.waiting: deque[Event] = deque()
        self.lost = 0
        self.more = threading.Event()
        self.closing = threading.Event()
        self.written = threading.Condition()
        self.taken, self.done = 0, 0  # events ever added, and ever written (or given up)
        self.descriptor, self.size = -1, 0
        self.thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.thread.start()

    def close(self) -> None:
        """Write what is left, and end."""
        self.closing.set()
        self.more.set()
        if self.thread.ident is not None:
            self.thread.join()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def add(self, event: Event) -> None:
        """Keep an event; from any thread, returns at once."""
        if len(self.waiting) >= WAITING:
            self.lost += 1
            return
        self.waiting.append(event)
        self.taken += 1
        if not self.more.is_set():
            self.more.set()

    def flush(self, within_s: float = 5.0) -> None:
        """Wait until what was added before is written."""
        wanted = self.taken
        with self.written:
            self.written.wait_for(lambda: self.done >= wanted, within_s)

    # ------------------------------------------------------------------ writing

    def _run(self) -> None:
        while True:
            self.more.wait()
            if not self.closing.is_set():
                self.closing.wait(BATCH_S)  # for others to come
            self.more.clear()
            self._write_all()
            if self.closing.is_set() and not self.waiting:
                return

    def _write_all(self) -> None:
        batch = [self.waiting.popleft() for _ in range(len(self.waiting))]
        if not batch:
            return
        content = memoryview(b"".join(ENCODER.encode(event) + b"\n" for event in batch))
        told = False
        while content:
            try:
                content = content[self._write(content) :]
            except OSError as error:
                if not told:
                    logger.error("Events can't be written to %s: %s", self.folder, error)
                told = True
                if self.closing.wait(RETRY_S):
                    break
        if self.lost:
            logger.error("%d events were lost: they came faster than they were written", self.lost)
            self.lost = 0
        with self.written:
            self.done += len(batch)
            self.written.notify_all()

    def _write(self, content: memoryview) -> int:
        """Write some, and sync it; return how many bytes."""
        if self.descriptor < 0 or self.size >= self.file_bytes:
            self._begin()
        count = os.write(self.descriptor, content)
        os.fdatasync(self.descriptor)
        self.size += count
        return count

    def _begin(self) -> None:
        """Begin a file; remove the oldest ones where all are too large."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        files = self.files()
        number = int(files[-1].stem) + 1 if files else 1
        sizes = {file: file.stat().st_size for file in files}
        left = sum(sizes.values()) + self.file_bytes
        for file in files:
            if left <= self.most_bytes:
                break
            file.unlink()
            left -= sizes[file]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(self.folder / f"{number:010d}{SUFFIX}", flags, 0o600)
        self.size = 0

    # ------------------------------------------------------------------ reading

    def files(self) -> list[Path]:
        """Return the files, the oldest first."""
        found = [file for file in self.folder.glob(f"*{SUFFIX}") if file.stem.isdecimal()]
        return sorted(found, key=lambda file: int(file.stem))

    def find(self, search: Search, within_s: float = float("inf")) -> Iterator[Event]:
        """Yield the events that are wanted, the newest first; TimeoutError when it takes long."""
        end = time.monotonic() + within_s
        for file in reversed(self.files()):
            for line in backwards(file):
                if time.monotonic() > end:
                    raise TimeoutError("the events of that time are too many to be looked through")
                if search.needle not in line:
                    continue
                try:
                    event = DECODER.decode(line)
                except msgspec.DecodeError:
                    continue
                if event.time_ms < search.since_ms - ORDER_MS:
                    return
                if search.since_ms <= event.time_ms <= search.until_ms and search.fits(event):
                    yield event


ORDER_MS = 3_600_000  # events lie in the order they ended; a call may have begun long before


def backwards(file: Path) -> Iterator[bytes]:
    """Yield a file's lines from the last to the first."""
    try:
        handle = file.open("rb")
    except FileNotFoundError:  # it was removed meanwhile
        return
    with handle:
        at, rest = handle.seek(0, os.SEEK_END), b""
        while at > 0:
            size = min(BLOCK, at)
            at -= size
            handle.seek(at)
            first, *lines = (handle.read(size) + rest).split(b"\n")
            rest = first
            yield from (line for line in reversed(lines) if line)
        if rest:
            yield rest
