"""Warnings in a job's log about the pictures it trains on: leaks, unreadable files, classes.

A best effort beside the training: it delays nothing, and a restarted server does not repeat it.
What was found is kept by what the channels hold, so that the trials of a tuning job share it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloche.core.clock import Clock, to_ms
from cloche.datacheck.names import pictures, split_named
from cloche.services.sagemaker.records import Request

MOST = 20_000  # pictures; pairs of more would take minutes


@dataclass
class DataWarnings:
    """Checks the channels of jobs, each content once. `kept` is the folder of what was found."""

    kept: Path
    clock: Clock
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def warn(self, channels: Sequence[Request], folder: Path, log: Path) -> None:
        """Append what is wrong with the channels' links below `folder` to a job's log."""
        lines = misnamed(channels)
        digest, count = await asyncio.to_thread(contents, folder)
        if 0 < count <= MOST:
            async with self.locks[digest]:
                lines += await self.findings(digest, folder)
        elif count:
            lines.append(f"{count:,} pictures are too many to look at; {MOST:,} are not.")
        if lines:
            await asyncio.to_thread(append, log, lines, self.clock)

    async def findings(self, digest: str, folder: Path) -> list[str]:
        """Return the findings of these contents, as sentences."""
        kept = self.kept / f"{digest}.json"
        if not kept.exists():
            command = (sys.executable, "-P", "-m", "cloche.datacheck", str(folder))
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            try:
                out, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            if process.returncode != 0:
                return []
            found = [json.loads(line) for line in out.splitlines()]
            await asyncio.to_thread(write, kept, json.dumps(found))
        return [f"{each['severity']}: {each['text']}" for each in json.loads(kept.read_text())]


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

    A link's inode is the object's: the same objects give the same digest.
    """
    digest, found = hashlib.sha256(), pictures(folder)
    for path in found:
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_ino} {stat.st_size}\n".encode())
    return digest.hexdigest(), len(found)


def append(log: Path, lines: Sequence[str], clock: Clock) -> None:
    """Add records to a log that the engine appends to as well: one write, never within a line."""
    now_ms = to_ms(clock.now())
    text = "".join(f"{now_ms} Cloche's data check: {line}\n" for line in lines)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_text(text)
    unfinished.rename(path)
