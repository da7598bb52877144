"""The object store as a role sees it: what the platform reads and writes for a job or replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cloche.core.authorization import Actor, Context, Values
from cloche.records import objects as rows

if TYPE_CHECKING:
    from cloche.services.s3.storage import S3, StoredObject
    from cloche.services.s3.verify import Verified

# What S3 sees of requests that a service makes with a role's keys.
SIGNED: Mapping[str, Values] = {
    "s3:authtype": "REST-HEADER",
    "s3:signatureversion": "AWS4-HMAC-SHA256",
}
OWNER_KEYS = ("aws:resourceaccount", "s3:resourceaccount")


class ForRoles(Protocol):
    """What other services have of the object store: no object but through a role."""

    @property
    def verified(self) -> Verified:
        """Which contents were looked at."""

    def bucket_exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket, of whatever account."""

    def acting_as(self, actor: Actor) -> ActingS3:
        """Return the object store as a role sees it."""


@dataclass(frozen=True, slots=True)
class ActingS3:
    """Reads and writes for an actor, who is asked about each; AwsError AccessDenied.

    From any thread, as `S3` itself.
    """

    s3: S3
    actor: Actor
    general: dict[str, Context] = field(default_factory=dict)  # what is true of all in a bucket

    def bucket_exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket, of whatever account."""
        return self.s3.bucket_exists(bucket)

    def find(self, bucket: str, key: str) -> StoredObject | None:
        """Return the object; None, to who may list the bucket, when there is none."""
        self.may_read(bucket, key)
        found = self.s3.find(bucket, key)
        if found is None:
            self.may_list(bucket)
        return found

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with the prefix, in the order of S3's lists."""
        self.may_list(bucket, prefix)
        yield from self.s3.list(bucket, prefix)

    def content(self, found: StoredObject) -> Path:
        """Return the file that has an object's content; nobody writes to it."""
        self.may_read(found.bucket, found.key)
        return found.path

    def link(self, found: StoredObject, destination: Path) -> StoredObject:
        """Put the object's content at `destination` (`S3.link`)."""
        self.may_read(found.bucket, found.key)
        return self.s3.link(found, destination)

    async def put_bytes(
        self, bucket: str, key: str, data: bytes, content_type: str | None = None
    ) -> StoredObject:
        """Keep `data` under the key; AwsError NoSuchBucket, StorageFull."""
        self._may_write(bucket, key)
        return await self.s3.put_bytes(bucket, key, data, content_type)

    async def put_file(
        self,
        bucket: str,
        key: str,
        path: Path | int,
        content_type: str | None = None,
        kms_key: str | None = None,
    ) -> StoredObject:
        """Keep a file's content under the key (`S3.put_file`)."""
        self._may_write(bucket, key, kms_key)
        return await self.s3.put_file(bucket, key, path, content_type, kms_key)

    async def put_once(
        self, bucket: str, key: str, path: Path, etag: str, size: int
    ) -> StoredObject:
        """Keep a file's content under the key, unless that is what lies there."""
        self._may_write(bucket, key)
        stored = self.s3.find(bucket, key)
        if stored is None or (stored.etag, stored.size) != (etag, size):
            stored = await self.s3.put_file(bucket, key, path)
        return stored

    def may_read(self, bucket: str, key: str) -> None:
        """Raise AccessDenied unless the actor may read an object, here or outside."""
        self._ask("s3:GetObject", bucket, f"/{key}")

    def may_list(self, bucket: str, prefix: str | None = None) -> None:
        """Raise AccessDenied unless the actor may list the objects beneath a prefix."""
        keys = {"s3:prefix": prefix} if prefix is not None else {}
        self._ask("s3:ListBucket", bucket, "", Context(keys))

    def _may_write(self, bucket: str, key: str, kms_key: str | None = None) -> None:
        keys: dict[str, Values] = {"s3:objectcreationoperation": "true"}
        if kms_key:
            header = "s3:x-amz-server-side-encryption"
            keys |= {header: "aws:kms", f"{header}-aws-kms-key-id": kms_key}
        self._ask("s3:PutObject", bucket, f"/{key}", Context(keys))

    def _ask(self, action: str, bucket: str, tail: str, context: Context | None = None) -> None:
        general = self.general.get(bucket)
        if general is None:
            later = dict.fromkeys(OWNER_KEYS, partial(self._owner, bucket))
            general = self.general[bucket] = Context(SIGNED, later)
        context = context.over(lambda: general) if context is not None else general
        self.actor.authorize(action, f"arn:aws:s3:::{bucket}{tail}", context)

    def _owner(self, bucket: str) -> Mapping[str, Values]:
        owner = rows.find_bucket(self.s3.store.read(), bucket)
        return dict.fromkeys(OWNER_KEYS, owner.account) if owner is not None else {}
