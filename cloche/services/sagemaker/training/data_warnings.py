"""Warnings in a job's log about the pictures it trains on: leaks, unreadable files, classes.

A best effort beside the training: it delays nothing, and a restarted server does not repeat it.
What was found is kept by what the channels hold, so that the trials of a tuning job share it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cloche.core import atomic, beneath, executors, log_lines
from cloche.core.clock import Clock, to_ms
from cloche.datacheck.names import hidden, picture_named, printed, split_named
from cloche.engine import Engine
from cloche.services.sagemaker.gangs import Gangs
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.picture_look import PREFIX, PictureCheck, end

logger = logging.getLogger("cloche.sagemaker")
MOST = 20_000  # pictures; pairs of more would take minutes
AT_ONCE = 2  # looks; others wait
MOST_KEPT = 1000  # contents whose findings are kept


@dataclass
class Turn:
    """One content: its jobs look one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    jobs: int = 0


@dataclass
class DataWarnings:
    """Checks the channels of jobs, each content once. `kept` is the folder of what was found."""

    kept: Path
    engine: Engine
    gangs: Gangs
    clock: Clock
    turns: dict[str, Turn] = field(default_factory=dict)
    looks: set[PictureCheck] = field(default_factory=set)
    closed: bool = False

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="data-check")
        left = [gang for gang in self.engine.adopt() if gang.startswith(PREFIX)]
        self.threads.submit(self.clear, left)

    async def close(self) -> None:
        """End the looks that are under way."""
        self.closed = True
        for look in self.looks:
            look.stop()
        await executors.ENDINGS.run(self.threads.shutdown)

    async def warn(self, channels: Sequence[Request], folder: Path, log: Path) -> None:
        """Append what is wrong with the channels' links below `folder` to a job's log."""
        lines = misnamed(channels)
        try:
            digest, count = await executors.FILES.run(contents, folder)
            if 0 < count <= MOST:
                lines += await self.findings(digest, folder)
            elif count:
                lines.append(f"{count:,} pictures are too many to look at; {MOST:,} are not.")
            if lines:
                now_ms = to_ms(self.clock.now())
                said = [(now_ms, f"Cloche's data check: {printed(line)}") for line in lines]
                await executors.LOGS.run(log_lines.append, log, said)
        except OSError as error:
            logger.warning("%s: no data check: %s", log.name, error)

    async def findings(self, digest: str, folder: Path) -> list[str]:
        """Return the findings of these contents, as sentences; none where the look failed."""
        turn = self.turns.setdefault(digest, Turn())
        turn.jobs += 1
        try:
            async with turn.lock:
                kept = self.kept / f"{digest}.json"
                found = await executors.FILES.run(read, kept)
                if found is None:
                    found = await self.look(folder)
                    if found is not None:
                        await executors.FILES.run(write, kept, found)
                return found or []
        finally:
            turn.jobs -= 1
            if not turn.jobs:
                del self.turns[digest]

    async def look(self, folder: Path) -> list[str] | None:
        """Return what a look finds; who is cancelled ends it."""
        if self.closed:
            return None
        look = PictureCheck(self.engine, folder)
        self.looks.add(look)
        self.gangs.expect(look.name, f"data-check/{look.name}", lambda _: look.woken.set())
        try:
            return await asyncio.wrap_future(self.threads.submit(look.run))
        finally:
            look.stop()
            self.looks.discard(look)
            self.gangs.forget(look.name)

    def clear(self, gangs: Sequence[str]) -> None:
        """End the looks of a server that was killed; let go of what is old. Blocks."""
        for gang in gangs:
            end(self.engine, gang)
        files = [each for each in self.kept.glob("*") if each.is_file()]
        left = {f"{gang}.log" for gang in gangs}
        whole = []
        for each in files:
            if each.name in left or each.suffix == atomic.UNFINISHED:
                each.unlink(missing_ok=True)
            elif each.suffix == ".json":
                whole.append(each)
        whole.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for each in whole[MOST_KEPT:]:
            each.unlink(missing_ok=True)


def misnamed(channels: Sequence[Request]) -> list[str]:
    """Return a line for each channel to train on whose data is, by its name, for testing."""
    lines = []
    for channel in channels:
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        folder = uri.rstrip("/").rpartition("/")[2]
        if split_named(channel["ChannelName"]) == "train" and split_named(folder) == "test":
            lines.append(f"error: channel {channel['ChannelName']} is {uri}, a folder for testing")
    return lines


def contents(folder: Path) -> tuple[str, int]:
    """Return a digest of the pictures' paths and files, and how many there are.

    A link's inode is the object's: the same objects give the same digest. OSError when there are
    too many files to look for pictures.
    """
    digest, count = hashlib.sha256(), 0
    with beneath.folder(folder) as root:
        for entry in beneath.walk(root):
            status = entry.status
            if not (stat.S_ISREG(status.st_mode) and picture_named(entry.name)):
                continue
            if any(map(hidden, entry.path.split("/"))):
                continue
            line = f"{entry.path} {status.st_ino} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
            count += 1
    return digest.hexdigest(), count


def read(path: Path) -> list[str] | None:
    """Return what was found before; None: nothing was looked for."""
    try:
        found: list[str] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def write(path: Path, found: Sequence[str]) -> None:
    """Keep what was found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(found).encode())
