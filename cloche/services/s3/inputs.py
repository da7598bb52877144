"""What jobs and endpoints read: objects that are here, and those of public buckets of the real S3.

A bucket that is here is read here. Of those that are not, the known public ones are read outside,
without a key, each time again. Blocking: called from threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from cloche.outside import OutsideError, PublicBuckets, RealS3

if TYPE_CHECKING:
    from cloche.core.authorization import Actor
    from cloche.services.s3.acting import ActingS3, ForRoles
    from cloche.services.s3.storage import StoredObject

SPARE_BYTES = 1 << 30  # of the disk, that a download leaves
PIECE = 1 << 20
TRIES, PAUSE_S = 3, 1.0  # of a download
PAGES = 1000  # of a list
XMLNS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
PLAIN_ETAG = re.compile(r"[0-9a-f]{32}")  # of one piece: its MD5, where S3 holds no key of it


@dataclass(frozen=True, slots=True)
class PublicObject:
    """An object of the real S3, as far as its list tells."""

    bucket: str
    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Where input comes from: the buckets that are here, and the public ones of the real S3."""

    s3: ForRoles
    real: RealS3
    public: PublicBuckets

    def acting_as(self, actor: Actor) -> Inputs:
        """Return the sources as a role sees them, to be halted by themselves."""
        return Inputs(self.s3.acting_as(actor), self.real, self.public)

    def is_outside(self, bucket: str) -> bool:
        """Tell whether a bucket is read outside: not here, and known to be public."""
        return not self.s3.bucket_exists(bucket) and self.public.has(bucket)


@dataclass
class Inputs:
    """Looks objects up for a role and puts their contents at paths, wherever they are.

    halted: once it is set, from any thread, what is being read outside breaks off.
    Each read is asked, also one outside; AwsError AccessDenied.
    """

    s3: ActingS3
    real: RealS3
    public: PublicBuckets
    halted: threading.Event = field(default_factory=threading.Event)

    def is_outside(self, bucket: str) -> bool:
        """Tell whether a bucket is read outside (`Sources.is_outside`)."""
        return not self.s3.bucket_exists(bucket) and self.public.has(bucket)

    def find(self, bucket: str, key: str) -> StoredObject | PublicObject | None:
        """Return the object, or None. OutsideError."""
        if not self.is_outside(bucket):
            return self.s3.find(bucket, key)
        self.s3.may_read(bucket, key)
        answer = self.real.get("HEAD", path_of(bucket, key), "", {})
        answer.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise OutsideError(f"S3 refuses to show s3://{bucket}/{key} ({answer.status})")
        length = answer.headers.get("content-length", "")
        if not length.isdecimal():
            raise OutsideError(f"S3 does not say how long s3://{bucket}/{key} is")
        return PublicObject(bucket, key, int(length), answer.headers.get("etag", "").strip('"'))

    def list(self, bucket: str, prefix: str) -> Iterator[StoredObject | PublicObject]:
        """Yield the objects whose keys begin with the prefix, in order. OutsideError."""
        if not self.is_outside(bucket):
            yield from self.s3.list(bucket, prefix)
            return
        self.s3.may_list(bucket, prefix)
        after = ""
        for _ in range(PAGES):
            self.check()
            asked = {"list-type": "2", "prefix": prefix}
            if after:
                asked["continuation-token"] = after
            answer = self.real.get("GET", f"/{bucket}", urlencode(asked, quote_via=quote), {})
            content = answer.whole()
            if answer.status != 200:
                raise OutsideError(f"S3 refuses to list s3://{bucket} ({answer.status})")
            page = parsed(content)
            for entry in page.iterfind(f"{XMLNS}Contents"):
                yield PublicObject(
                    bucket,
                    entry.findtext(f"{XMLNS}Key", ""),
                    int(entry.findtext(f"{XMLNS}Size", "0")),
                    entry.findtext(f"{XMLNS}ETag", "").strip('"'),
                )
            after = page.findtext(f"{XMLNS}NextContinuationToken", "")
            if not after:
                return
        raise OutsideError(f"s3://{bucket}/{prefix} has more than {PAGES * 1000:,} objects")

    def read(self, found: StoredObject | PublicObject) -> bytes:
        """Return a whole content; its size was looked at before."""
        if not isinstance(found, PublicObject):
            return self.s3.content(found).read_bytes()
        self.s3.may_read(found.bucket, found.key)
        answer = self.real.get("GET", path_of(found.bucket, found.key), "", {})
        content = answer.whole()
        if answer.status != 200:
            raise OutsideError(f"S3 answers {answer.status} for s3://{found.bucket}/{found.key}")
        return content

    def bucket_exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket, here or among the public ones."""
        return self.s3.bucket_exists(bucket) or self.public.has(bucket)

    def link(
        self, found: StoredObject | PublicObject, destination: Path
    ) -> StoredObject | PublicObject:
        """Put an object's content at a path, as a hard link where it is here (`S3.link`)."""
        if not isinstance(found, PublicObject):
            return self.s3.link(found, destination)
        self.s3.may_read(found.bucket, found.key)
        for left in reversed(range(TRIES)):
            try:
                self.fetch(found, destination)
                break
            except OutsideError:
                destination.unlink(missing_ok=True)
                if not left or self.halted.wait(PAUSE_S):
                    raise
        return found

    def fetch(self, found: PublicObject, destination: Path) -> None:
        """Put an object's content at a path, whole and as S3 says it is. OutsideError; OSError
        when there is no space for it, FileExistsError when something is there.
        """
        destination.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(destination.parent).free - found.size < SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.check()
        answer = self.real.get("GET", path_of(found.bucket, found.key), "", {})
        digest, taken = hashlib.md5(usedforsecurity=False), 0
        try:
            if answer.status != 200:
                text = f"S3 answers {answer.status} for s3://{found.bucket}/{found.key}"
                raise OutsideError(text)
            with destination.open("xb") as file:
                while piece := answer.read(PIECE):
                    self.check()
                    digest.update(piece)
                    taken += len(piece)
                    file.write(piece)
                os.fchmod(file.fileno(), 0o444)
        finally:
            answer.close()
        if taken != found.size:
            raise OutsideError(f"s3://{found.bucket}/{found.key} changed while it was read")
        sealed = answer.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
        if PLAIN_ETAG.fullmatch(found.etag) and not sealed and digest.hexdigest() != found.etag:
            raise OutsideError(f"s3://{found.bucket}/{found.key} did not arrive as it is")

    def check(self) -> None:
        """Raise OutsideError when nobody wants it any more."""
        if self.halted.is_set():
            raise OutsideError("It was stopped")


def path_of(bucket: str, key: str) -> str:
    """Return the path of an object, as it goes out."""
    return f"/{bucket}/{quote(key, safe='/-_.~')}"


def parsed(content: bytes) -> ElementTree.Element:
    """Return a list's document; OutsideError when it is none."""
    if b"<!DOCTYPE" in content[:1024]:
        raise OutsideError("S3's list is not a list")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise OutsideError(f"S3's list can't be read: {error}") from error
