"""Groups and streams: resources of the store; their records are files.

Kinds "log-group" (named as on AWS) and "log-stream" (named GROUP:STREAM: a group's name has no
colon).
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from cloche.core.arn import Arn
from cloche.core.authorization import Actor
from cloche.core.typed import Record, decode, encode, readable
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.resource import Document, Listing, Page, Resource
from cloche.records.store import Store
from cloche.services.logs.files import LogFile, LogRecord, read_from, read_lines

logger = logging.getLogger("cloche.services.logs")

GROUP, STREAM = "log-group", "log-stream"
WrittenBy = Literal["client", "platform"]
CLIENT: Final = "client"  # who writes a stream: PutLogEvents
PLATFORM: Final = "platform"  # or the engine
KNOWN = 50_000  # streams whose extent is remembered
QUICK_S, REST = 0.01, 50  # a look at a group's files that is quick; times as long they rest after
NAME_BYTES = 180  # a longer file name is cut, and distinguished by its hash


class StreamDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """What is kept of a stream: its file, below the folder of all, and who writes it."""

    file: str
    writer: WrittenBy


@dataclass(frozen=True, slots=True)
class StreamExtent:
    """What a stream holds now; times in milliseconds, None while it is empty."""

    stored_bytes: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    ingested_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GroupSize:
    """What a group's files held; `until`, by the monotonic clock, that is near enough."""

    total: int
    until: float


class Logs:
    """Knows every log group and stream, and the file behind each stream."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.locks: dict[str, asyncio.Lock] = {}
        self.extents: dict[str, tuple[tuple[int, int, int], StreamExtent]] = {}
        self.sizes: dict[Path, GroupSize] = {}

    async def open_stream(self, account: str, region: str, group: str, stream: str) -> Path:
        """Return the file that the stream's writer appends to; makes group and stream.

        The writer is another process: PutLogEvents to such a stream is refused. Conflict when the
        stream just changed.
        """
        found = self.stream(account, region, group, stream)
        if found is None:
            with contextlib.suppress(AlreadyExists):
                await self.create_group(account, region, group)
            with contextlib.suppress(AlreadyExists):
                await self.create_stream(account, region, group, stream, writer=PLATFORM)
            found = self.stream(account, region, group, stream)
            assert found is not None
        kept = document_of(found)
        if kept.writer != PLATFORM:
            found = await self.store.update(found, document=encode(kept.replace(writer=PLATFORM)))
        path = self.file(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    async def open_stream_as(
        self, actor: Actor, region: str, group: str, stream: str, otherwise: Path
    ) -> Path:
        """Return the file of a stream that the platform writes for a role (`open_stream`); where
        the role may not write it, the file `otherwise`, which is in no log group.

        Asked when the first of it is written: a writer keeps the file that it has.
        """
        account = actor.principal.account
        if otherwise.exists():
            return otherwise
        found = self.stream(account, region, group, stream)
        written = found is not None and document_of(found).writer == PLATFORM
        if not written and not self._may_write(actor, region, group, stream):
            otherwise.parent.mkdir(parents=True, exist_ok=True)
            otherwise.touch()
            return otherwise
        return await self.open_stream(account, region, group, stream)

    def _may_write(self, actor: Actor, region: str, group: str, stream: str) -> bool:
        """Tell whether an actor may make the stream, its group if need be, and write to it.

        https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
        """
        account = actor.principal.account
        place = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
        asked = [("logs:CreateLogStream", place + stream), ("logs:PutLogEvents", place + stream)]
        if self.group(account, region, group) is None:
            asked.insert(0, ("logs:CreateLogGroup", place))
        lacking = [action for action, arn in asked if not actor.decide(action, arn).allowed]
        if lacking:
            who = actor.principal.role_arn or actor.principal.arn
            logger.warning(
                "%s:%s is not written: %s may not do %s", group, stream, who, ", ".join(lacking)
            )
        return not lacking

    def read_from(self, path: Path, offset: int) -> tuple[list[LogRecord], int]:
        """Return the complete records from a byte offset on, and the offset to go on from.

        About a megabyte at once: there is more while the offset moves.
        """
        return read_from(path, offset)

    def read_lines(self, path: Path, offset: int, *, whole: bool) -> tuple[list[LogRecord], int]:
        """Return the same, with the parts of a line joined; `whole`: also of the last, unfinished.

        A line that was printed in parts, slowly, is that many records.
        """
        return read_lines(path, offset, whole=whole)

    # ------------------------------------------------------------------ groups

    def group(self, account: str, region: str, name: str) -> Resource | None:
        """Return a group, or None."""
        return self.store.get(GROUP, account, region, name)

    async def create_group(self, account: str, region: str, name: str) -> Resource:
        """Make a group; AlreadyExists when it is there."""
        arn = str(Arn("logs", region, account, f"log-group:{name}"))
        return await self.store.insert(self._new(account, region, GROUP, name, arn))

    async def delete_group(self, group: Resource) -> None:
        """Remove a group with its streams and their files; Conflict when it just changed."""
        for stream in self.streams(group):
            with contextlib.suppress(Conflict):
                await self.delete_stream(stream)
        await self.store.delete(group)

    def groups(
        self, account: str, region: str, prefix: str, contains: str, after: str | None, limit: int
    ) -> list[Resource]:
        """Return groups by name, after a name: those that begin with, and have, a text."""
        wanted = Listing(
            kind=GROUP,
            account=account,
            region=region,
            name_prefix=prefix or None,
            name_has=contains or None,
            sort_by="name",
            limit=limit,
            after=None if after is None else json.dumps([after]),
        )
        return list(self.store.page(wanted).resources)

    # ------------------------------------------------------------------ streams

    def stream(self, account: str, region: str, group: str, name: str) -> Resource | None:
        """Return a stream, or None."""
        return self.store.get(STREAM, account, region, f"{group}:{name}")

    async def create_stream(
        self,
        account: str,
        region: str,
        group: str,
        name: str,
        *,
        writer: WrittenBy = CLIENT,
    ) -> Resource:
        """Make a stream of a group that is there; AlreadyExists when it is there too."""
        arn = str(Arn("logs", region, account, f"log-group:{group}:log-stream:{name}"))
        file = f"{account}/{region}/{file_name(group)}/{file_name(name)}.log"
        document = encode(StreamDocument(file=file, writer=writer))
        new = self._new(account, region, STREAM, f"{group}:{name}", arn, document)
        return await self.store.insert(new)

    async def delete_stream(self, stream: Resource) -> None:
        """Remove a stream and its file; Conflict when it just changed."""
        await self.store.delete(stream)
        self.file(stream).unlink(missing_ok=True)
        self.locks.pop(stream.arn, None)
        self.extents.pop(stream.arn, None)

    def page(
        self, group: Resource, prefix: str, after: str | None, descending: bool, limit: int
    ) -> Page:
        """Return some of a group's streams by name, those after the stream `after`."""
        token = None if after is None else json.dumps([f"{group.name}:{after}"])
        wanted = listing(group, prefix, token)
        return self.store.page(replace(wanted, descending=descending, limit=limit))

    def streams(self, group: Resource, prefix: str = "") -> Iterator[Resource]:
        """Yield a group's streams whose names begin with the prefix, by name."""
        after: str | None = None
        while True:
            page = self.store.page(listing(group, prefix, after))
            yield from page.resources
            if (after := page.next_token) is None:
                return

    def file(self, stream: Resource) -> Path:
        """Return the file behind a stream (it may not be there yet)."""
        return self.folder / document_of(stream).file

    def extent(self, stream: Resource) -> StreamExtent:
        """Return what a stream holds now."""
        path = next(readable(self.file, [stream]), None)
        if path is None:
            return StreamExtent()
        try:
            status = path.stat()
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self.extents.get(stream.arn)
            if known is not None and known[0] == state:
                return known[1]
            with LogFile(path) as log:
                first, last = log.first(), log.last()
                found = StreamExtent()
                if first is not None and last is not None:
                    found = StreamExtent(log.size, first.at_ms, last.at_ms, log.modified_ms)
        except FileNotFoundError:
            return StreamExtent()
        if len(self.extents) >= KNOWN:
            self.extents.clear()
        self.extents[stream.arn] = (state, found)
        return found

    def stored_bytes(self, group: Resource) -> int:
        """Return how much a group's files hold: looked at again the later the longer that takes.

        Blocks: call it from a thread.
        """
        folder = self.folder / group.account / group.region / file_name(group.name)
        begin = time.monotonic()
        known = self.sizes.get(folder)
        if known is not None and begin < known.until:
            return known.total
        try:
            with os.scandir(folder) as entries:
                total = sum(e.stat().st_size for e in entries if e.name.endswith(".log"))
        except FileNotFoundError:
            return 0
        took_s = time.monotonic() - begin
        if took_s > QUICK_S:
            self.sizes[folder] = GroupSize(total, begin + took_s * REST)
        return total

    def lock(self, stream: Resource) -> asyncio.Lock:
        """Return the lock that PutLogEvents to one stream takes turns by."""
        return self.locks.setdefault(stream.arn, asyncio.Lock())

    def _new(
        self,
        account: str,
        region: str,
        kind: str,
        name: str,
        arn: str,
        document: Document | None = None,
    ) -> Resource:
        now = self.store.clock.now()
        return Resource(
            account=account,
            region=region,
            kind=kind,
            name=name,
            arn=arn,
            created=now,
            modified=now,
            document=document or {},
        )


def listing(group: Resource, prefix: str, after: str | None) -> Listing:
    """Return the query for a page of a group's streams, by name."""
    return Listing(
        kind=STREAM,
        account=group.account,
        region=group.region,
        name_prefix=f"{group.name}:{prefix}",
        sort_by="name",
        limit=1000,
        after=after,
    )


def document_of(stream: Resource) -> StreamDocument:
    """Return what is kept of a stream; BadRecord when it is none."""
    return decode(StreamDocument, stream.document, stream.arn)


def stream_name(stream: Resource) -> str:
    """Return a stream's name without its group's."""
    return stream.name.partition(":")[2]


def file_name(name: str) -> str:
    """Return a name as a file name: percent-encoded, cut where it would be too long."""
    encoded = quote(name, safe="").replace(".", "%2E") if set(name) == {"."} else quote(name, "")
    if len(encoded) <= NAME_BYTES:
        return encoded
    return f"{encoded[:NAME_BYTES]}-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
