"""Conditional requests: on reading (HTTP's), on copying, and on writing (S3's own).

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate

from cloche.core.errors import AwsError
from cloche.records.objects import ObjectRow
from cloche.services.s3.errors import no_such_key, not_implemented, precondition_failed


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a read asks for; entity tags as sent, times in UTC."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None


def matches(sent: str, etag: str) -> bool:
    """Tell whether one of the entity tags sent, quoted or not, is `etag`; `*` is any."""
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in sent.split(",")}
    return etag in tags or "*" in tags


def check_read(conditions: Conditions, row: ObjectRow) -> None:
    """Raise PreconditionFailed, or NotModified (304), unless the conditions hold.

    If-Match outranks If-Unmodified-Since, and If-None-Match If-Modified-Since (RFC 9110, 13.2.2).
    """
    failed = failed_match(conditions, row)
    if failed is not None:
        raise precondition_failed(failed)
    if failed_none_match(conditions, row) is not None:
        headers = {
            "etag": f'"{row.etag}"',
            "last-modified": formatdate(row.modified // 1000, usegmt=True),
        }
        raise AwsError("NotModified", "Not Modified", 304, headers=headers)


def check_copy(conditions: Conditions, row: ObjectRow) -> None:
    """Raise PreconditionFailed unless the conditions on a copy's source hold."""
    failed = failed_match(conditions, row) or failed_none_match(conditions, row)
    if failed is not None:
        raise precondition_failed(f"x-amz-copy-source-{failed}")


def failed_match(conditions: Conditions, row: ObjectRow) -> str | None:
    """Return which condition that asks for the object as it was does not hold."""
    if conditions.if_match is not None:
        return None if matches(conditions.if_match, row.etag) else "If-Match"
    since = conditions.if_unmodified_since
    if since is not None and row.modified // 1000 > since.timestamp():
        return "If-Unmodified-Since"
    return None


def failed_none_match(conditions: Conditions, row: ObjectRow) -> str | None:
    """Return which condition that asks for another object than the known one does not hold."""
    if conditions.if_none_match is not None:
        return "If-None-Match" if matches(conditions.if_none_match, row.etag) else None
    since = conditions.if_modified_since
    if since is not None and row.modified // 1000 <= since.timestamp():
        return "If-Modified-Since"
    return None


@dataclass(frozen=True, slots=True)
class WriteGuard:
    """The conditions of a write, to be checked inside its transaction."""

    key: str
    if_match: str | None
    if_none_match: str | None

    def __call__(self, there: ObjectRow | None) -> None:
        """Raise unless the object that is there (None: none) is what the client expects."""
        if self.if_none_match is not None:
            if self.if_none_match.strip() != "*":
                raise not_implemented("If-None-Match")
            if there is not None:
                raise precondition_failed("If-None-Match")
        if self.if_match is not None:
            if there is None:
                raise no_such_key(self.key)
            if not matches(self.if_match, there.etag):
                raise precondition_failed("If-Match")
