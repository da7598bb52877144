"""Objects: an index in the records, contents in the blob store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Connection

from cloche.core import executors
from cloche.core.authorization import Actor
from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.core.executors import Executor
from cloche.records import objects as rows
from cloche.records.objects import BucketRow, ObjectRow
from cloche.records.prefix import successor
from cloche.records.store import Store
from cloche.services.s3.acting import ActingS3
from cloche.services.s3.blobs import PIECE, BlobStore, LocalBlobs, link_or_copy
from cloche.services.s3.document import Document, Texts, dump, load
from cloche.services.s3.errors import no_such_bucket, no_such_key
from cloche.services.s3.verify import Verified

logger = logging.getLogger("cloche.s3")
PAGE = 1000  # objects read from the index at a time
DEFAULT_TYPE = "binary/octet-stream"
SHORT_BYTES = 1 << 20  # to be read and hashed: more is long work

T = TypeVar("T")
Guard = Callable[[ObjectRow | None], None]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as other services see it; lists make thousands, so that most is made on demand."""

    row: ObjectRow
    blobs: BlobStore

    @property
    def bucket(self) -> str:
        """The bucket that it lies in."""
        return self.row.bucket

    @property
    def key(self) -> str:
        """Its name in the bucket."""
        return self.row.key

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.row.size

    @property
    def etag(self) -> str:
        """Its entity tag, without quotes."""
        return self.row.etag

    @property
    def modified(self) -> datetime:
        """When it was written."""
        return from_ms(self.row.modified)

    @property
    def path(self) -> Path:
        """Its content: a read-only file."""
        return self.blobs.path(self.row.blob)

    @property
    def metadata(self) -> Texts:
        """The user's metadata, names without `x-amz-meta-`."""
        return load(self.row.document).metadata

    @property
    def content_type(self) -> str:
        """The media type that the object was given."""
        return load(self.row.document).headers.get("ContentType", DEFAULT_TYPE)


class S3:
    """The object store. Look-ups are quick and synchronous; writes are durable when they return.

    Other services use it as a role, `acting_as`: each read and write is asked.
    """

    def __init__(self, store: Store, blobs: Path | BlobStore) -> None:
        self.store = store
        self.blobs: BlobStore = LocalBlobs(blobs) if isinstance(blobs, Path) else blobs
        self.verified = Verified()
        self.listeners: list[Callable[[str], None]] = []
        self.sweeper = ThreadPoolExecutor(1, "s3-sweep")
        self.swept = self.sweeper.submit(self._sweep)

    def _sweep(self) -> None:
        """Clear away what a killed server left behind, while this one serves already."""
        lost = self.blobs.sweep(rows.blobs(self.store.read()))
        if lost:  # those that were removed since the rows were read are none
            lost &= rows.blobs(self.store.read())
        if lost:
            logger.error("%d objects have lost their content, %s first", len(lost), min(lost))

    def close(self) -> None:
        """Wait for the sweep."""
        self.sweeper.shutdown()

    # ------------------------------------------------------------------ for other services

    def acting_as(self, actor: Actor) -> ActingS3:
        """Return the object store as a role sees it, for work that is done for the role."""
        return ActingS3(self, actor)

    def bucket_exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket, of whatever account."""
        return rows.find_bucket(self.store.read(), bucket) is not None

    def find(self, bucket: str, key: str) -> StoredObject | None:
        """Return the object, or None."""
        row = rows.find_object(self.store.read(), bucket, key)
        return self._stored(row) if row is not None else None

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with the prefix, in the order of S3's lists."""
        start, inclusive, end = prefix, True, successor(prefix)
        while True:
            page = rows.objects(self.store.read(), bucket, start, end, PAGE, inclusive)
            yield from map(self._stored, page)
            if len(page) < PAGE:
                return
            start, inclusive = page[-1].key, False

    async def put_bytes(
        self, bucket: str, key: str, data: bytes, content_type: str | None = None
    ) -> StoredObject:
        """Keep `data` under the key; AwsError NoSuchBucket, StorageFull."""

        def write() -> tuple[str, str, int]:
            return self._ingest(iter([data]))

        return await self._put(bucket, key, executors.S3_WRITE, write, content_type)

    async def put_file(
        self,
        bucket: str,
        key: str,
        path: Path | int,
        content_type: str | None = None,
        kms_key: str | None = None,
    ) -> StoredObject:
        """Keep a file's content under the key; the file itself is not used afterwards.

        path: its path, or a descriptor of it, which the caller closes.
        kms_key: by which it is said to be encrypted.
        """

        def write() -> tuple[str, str, int]:
            with open(path, "rb", closefd=not isinstance(path, int)) as file:
                return self._ingest(iter(lambda: file.read(PIECE), b""))

        return await self._put(bucket, key, executors.FILES, write, content_type, kms_key)

    def link(self, found: StoredObject, destination: Path) -> StoredObject:
        """Put the object's content at `destination`, as a hard link where that can be.

        Return the object as it was put there.

        The file is read-only and shared with the store: lay an overlay over it before anybody may
        write. Folders are made as needed. FileExistsError; FileNotFoundError when the object was
        deleted meanwhile (of one that was replaced the new content is linked).
        """
        while True:
            try:
                link_or_copy(found.path, destination)
            except FileNotFoundError:
                if not destination.parent.is_dir():
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    continue
                newer = self.find(found.bucket, found.key)
                if newer is None or newer.row.blob == found.row.blob:
                    raise
                found = newer
            else:
                return found

    # ------------------------------------------------------------------ for the operations

    def open(self, bucket: str, key: str) -> tuple[ObjectRow, int]:
        """Return an object's row and a descriptor of its content; AwsError NoSuchKey.

        The caller closes the descriptor. A replacement between the look-up and the opening is
        looked up again.
        """
        while True:
            row = self.row(bucket, key)
            try:
                return row, os.open(self.blobs.path(row.blob), os.O_RDONLY)
            except FileNotFoundError:
                if self.row(bucket, key).blob == row.blob:
                    raise

    def row(self, bucket: str, key: str) -> ObjectRow:
        """Return an object's row; AwsError NoSuchKey."""
        row = rows.find_object(self.store.read(), bucket, key)
        if row is None:
            raise no_such_key(key)
        return row

    async def commit(
        self,
        new: ObjectRow,
        guard: Guard | None = None,
        also: Callable[[Connection], Sequence[str]] | None = None,
    ) -> None:
        """Make `new` the object of its key, and its blob known; what it replaces is removed.

        `guard` sees the object that is there (None: none) inside the transaction and may raise;
        `also` makes further changes in it and returns blobs to be removed. When anything fails
        the new blob is removed too.
        """

        def change(connection: Connection) -> Sequence[str]:
            if rows.find_bucket(connection, new.bucket) is None:
                raise no_such_bucket(new.bucket)
            old = rows.find_object(connection, new.bucket, new.key)
            if guard is not None:
                guard(old)
            gone = also(connection) if also is not None else []
            rows.put_object(connection, new)
            return gone if old is None else [*gone, old.blob]

        await self.settle(new.blob, change)

    async def settle(self, blob: str, change: Callable[[Connection], Sequence[str]]) -> None:
        """Make a change that gives a new blob its row; remove the blobs that it returns.

        When the change was refused, the new blob is removed. After any other failure it stays:
        whether there is a row, only the next start can say, and sweeps.
        """
        write = asyncio.ensure_future(self.store.write(change))
        write.add_done_callback(lambda done: self._settled(blob, done))
        # A client that goes away must not part the row from its blob: the write goes on.
        await asyncio.shield(write)

    def _settled(self, blob: str, write: asyncio.Task[Sequence[str]]) -> None:
        if write.cancelled():
            return
        error = write.exception()
        if error is None:
            self.remove(write.result())
        elif isinstance(error, AwsError):
            self.remove([blob])

    def on_setting(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a bucket's name after the bucket, or a setting of it, changed."""
        self.listeners.append(listener)

    async def configure(self, bucket: str, change: Callable[[Connection], T]) -> T:
        """Make a change of a bucket or its settings; who listens is told before this returns."""
        write = asyncio.ensure_future(self.store.write(change))
        write.add_done_callback(lambda _done: self._tell(bucket))
        # Also when the client goes away meanwhile: the write goes on.
        return await asyncio.shield(write)

    def _tell(self, bucket: str) -> None:
        for listener in self.listeners:
            listener(bucket)

    def remove(self, blobs: Sequence[str]) -> None:
        """Remove blobs that no row names any more, without waiting for it."""
        if blobs:
            executors.S3_WRITE.submit(self.blobs.delete, *blobs)

    # ------------------------------------------------------------------ inside

    def _stored(self, row: ObjectRow) -> StoredObject:
        return StoredObject(row, self.blobs)

    def _ingest(self, pieces: Iterator[bytes]) -> tuple[str, str, int]:
        """Return a new blob's id, its MD5 and its size."""
        writer, md5 = self.blobs.create(), hashlib.md5(usedforsecurity=False)
        try:
            for piece in pieces:
                md5.update(piece)
                writer.write([piece])
            writer.keep()
        except BaseException:
            writer.discard()
            raise
        return writer.blob, md5.hexdigest(), writer.size

    async def _put(
        self,
        bucket: str,
        key: str,
        on: Executor,
        write: Callable[[], tuple[str, str, int]],
        content_type: str | None,
        kms_key: str | None = None,
    ) -> StoredObject:
        if not self.bucket_exists(bucket):
            raise no_such_bucket(bucket)
        blob, etag, size = await on.run(write)
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        document = Document(
            headers={"ContentType": content_type or DEFAULT_TYPE}, encryption=dict(encryption)
        )
        now = to_ms(self.store.clock.now())
        row = ObjectRow(bucket, key, size, etag, now, blob, dump(document))
        await self.commit(row)
        return self._stored(row)

    async def create_bucket(
        self,
        bucket: str,
        account: str,
        region: str,
        now: datetime | None = None,
        settings: Mapping[str, str] = {},
    ) -> tuple[BucketRow, bool]:
        """Make a bucket, or return the one that is there, of whatever account; True: it is new.

        settings: those of a new one, by their kind.
        """
        new = BucketRow(bucket, account, region, to_ms(now or self.store.clock.now()))

        def change(connection: Connection) -> tuple[BucketRow, bool]:
            found = rows.find_bucket(connection, bucket)
            if found is None:
                rows.add_bucket(connection, new)
                for kind, document in settings.items():
                    rows.set_bucket_setting(connection, bucket, kind, document)
            return found or new, found is None

        return await self.configure(bucket, change)


def for_bytes(size: int) -> Executor:
    """Return where so many bytes are read and written: a long copy delays no short write."""
    return executors.S3_WRITE if size <= SHORT_BYTES else executors.FILES
