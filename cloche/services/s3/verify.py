"""Which contents are known to be as they were written, and how others are looked at."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.records.objects import part_sizes

if TYPE_CHECKING:
    from cloche.services.s3.storage import StoredObject

logger = logging.getLogger("cloche.s3")
MOST = 200_000  # files that are remembered
# A content is what it was while its file is the same and nobody wrote to it. Its time of change
# says nothing: each name that it gets in a job's folder changes that.
Identity = tuple[int, int, int, int]


@dataclass
class Verified:
    """Remembers contents that were looked at since the server started; one look at a time."""

    known: dict[Identity, None] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def knows(self, path: Path) -> bool:
        """Return whether a file was looked at, and is still the same."""
        return identity(os.stat(path)) in self.known

    async def look(self, listed: Path) -> list[tuple[int, str]] | None:
        """Return number and fault of the listed files that have one (see `cloche.core.content`).

        None: nobody knows, for the look did not get to its end.
        """
        async with self.lock:
            left = await executors.FILES.run(self.left, listed)
            if not left:
                return []
            command = (sys.executable, "-m", "cloche.core.content", str(listed))
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            try:
                out, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if process.returncode != 0:
                logger.error("%s: its contents were not verified to the end", listed)
                return None
            faults = [(number, text) for number, text in map(json.loads, out.splitlines())]
            wrong = {number for number, _ in faults}
            self.remember([each for number, each in enumerate(left) if number not in wrong])
            return faults

    def left(self, listed: Path) -> list[Identity]:
        """Return what the listed files are; nothing when all are known."""
        with listed.open(encoding="utf-8") as lines:
            found = [identity(os.stat(json.loads(line)[0])) for line in lines]
        return [] if all(each in self.known for each in found) else found

    def remember(self, found: Sequence[Identity]) -> None:
        """Remember contents that are as they were written."""
        self.known |= dict.fromkeys(found)
        while len(self.known) > MOST:
            with suppress(StopIteration):
                del self.known[next(iter(self.known))]


def identity(status: os.stat_result) -> Identity:
    """Return what is the same while a content is."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def expected(stored: StoredObject) -> tuple[int, str, list[int]]:
    """Return size, entity tag and the parts' sizes of an object."""
    row = stored.row
    return row.size, row.etag, part_sizes(row) if "-" in row.etag else []


def line(path: Path, stored: StoredObject) -> str:
    """Return the line of a list by which a file is looked at."""
    return f"{json.dumps([str(path), *expected(stored)])}\n"
