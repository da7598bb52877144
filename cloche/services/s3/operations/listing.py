"""Lists of objects, both versions, and of uploads under way."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.operation import Call, Result, operation
from cloche.records import objects as rows
from cloche.records.objects import ObjectRow, UploadRow
from cloche.records.store import Store
from cloche.services.s3.document import load
from cloche.services.s3.errors import invalid_argument
from cloche.services.s3.permissions import LIST, on_bucket
from cloche.services.s3.requests import Owner, bucket_of, owner_of
from cloche.services.s3.scan import Entries, scan
from cloche.services.s3.storage import S3

MOST = 1000  # entries of one page
ALL = (1 << 31) - 1  # a key may have several uploads: they are read together
SAFE = "/-_.~*()!'"
PLAIN = re.compile(rf"[A-Za-z0-9{re.escape(SAFE)}]*")  # what quote leaves as it is


def checked_limit(name: str, value: int | None) -> int:
    """Return how many entries a page may have; AwsError InvalidArgument."""
    if value is not None and not 0 <= value < 1 << 31:
        text = f"Argument {name} must be an integer between 0 and 2147483647"
        raise invalid_argument(text, name, value)
    return MOST if value is None else min(value, MOST)


def encoder(encoding: str | None) -> partial[str]:
    """Return the function that writes keys: URL-encoded where the client asks for it."""
    if encoding not in (None, "url"):
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", "")
    return partial(url_encoded) if encoding else partial(str)


def url_encoded(text: str) -> str:
    """Return text as EncodingType `url` has it; most keys have nothing to encode."""
    return text if PLAIN.fullmatch(text) else quote(text, safe=SAFE)


def entry(row: ObjectRow, write: partial[str], owner: Owner | None) -> dict[str, object]:
    """Return an object as lists show it."""
    document = load(row.document)
    shown: dict[str, object] = {
        "Key": write(row.key),
        "LastModified": from_ms(row.modified),
        "ETag": f'"{row.etag}"',
        "Size": row.size,
        "StorageClass": document.storage_class,
    }
    if document.checksums:
        shown["ChecksumAlgorithm"] = list(document.checksums)
        shown["ChecksumType"] = document.checksum_type
    if owner is not None:
        shown["Owner"] = owner
    return shown


def scan_objects(
    call: Call[S3], bucket: str, prefix: str, delimiter: str, after: str, limit: int
) -> Entries[ObjectRow]:
    """Return one page of a bucket's objects."""

    def fetch(start: str, end: str | None, limit: int, inclusive: bool) -> list[ObjectRow]:
        return rows.objects(call.store.read(), bucket, start, end, limit, inclusive)

    def first_keys(start: str, end: str | None, limit: int) -> list[str] | None:
        place = rows.KeyRange(bucket, start, end, limit)
        return rows.first_keys(call.store.read(), place, prefix, delimiter)

    return scan(fetch, prefix, delimiter, after, limit, first_keys=first_keys)


def fetch_uploads(
    store: Store, bucket: str, start: str, end: str | None, limit: int, inclusive: bool
) -> list[UploadRow]:
    """Return uploads by key, as many as `limit` or more: all of a key are together."""
    found = rows.uploads(store.read(), bucket, start, end, limit, inclusive)
    if len(found) < limit:
        return found
    last = found[-1].key
    whole = rows.uploads(store.read(), bucket, last, last + "\0", ALL, True)
    return [row for row in found if row.key != last] + whole


def contents(
    found: Entries[ObjectRow], write: partial[str], owner: Owner | None
) -> dict[str, object]:
    """Return a page's objects and common prefixes, those that there are."""
    result: dict[str, object] = {"IsTruncated": found.truncated}
    if found.rows:
        result["Contents"] = [entry(row, write, owner) for row in found.rows]
    if found.prefixes:
        result["CommonPrefixes"] = [{"Prefix": write(prefix)} for prefix in found.prefixes]
    return result


def given(members: Mapping[str, object | None]) -> dict[str, object]:
    """Return the members that have a value."""
    return {name: value for name, value in members.items() if value is not None}


@operation(permissions=[LIST], on=executors.S3_READ)
def list_objects(
    call: Call[S3],
    *,
    Bucket: str,
    Delimiter: str | None = None,
    EncodingType: str | None = None,
    Marker: str | None = None,
    MaxKeys: int | None = None,
    Prefix: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return the objects after `Marker`; NextMarker only where there is a delimiter."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    limit, write = checked_limit("max-keys", MaxKeys), encoder(EncodingType)
    found = scan_objects(call, Bucket, Prefix or "", Delimiter or "", Marker or "", limit)
    return {
        "Name": Bucket,
        "Prefix": write(Prefix or ""),
        "Marker": write(Marker or ""),
        "MaxKeys": limit,
        **given(
            {
                "Delimiter": write(Delimiter) if Delimiter else None,
                "EncodingType": EncodingType,
                "NextMarker": write(found.last) if found.truncated and Delimiter else None,
            }
        ),
        **contents(found, write, owner_of(bucket.account)),
    }


@operation(permissions=[LIST], on=executors.S3_READ)
def list_objects_v2(
    call: Call[S3],
    *,
    Bucket: str,
    Delimiter: str | None = None,
    EncodingType: str | None = None,
    MaxKeys: int | None = None,
    Prefix: str | None = None,
    ContinuationToken: str | None = None,
    FetchOwner: bool | None = None,
    StartAfter: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return the objects after the continuation token, or after `StartAfter`."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    limit, write = checked_limit("max-keys", MaxKeys), encoder(EncodingType)
    after = StartAfter or "" if ContinuationToken is None else place(ContinuationToken)
    found = scan_objects(call, Bucket, Prefix or "", Delimiter or "", after, limit)
    return {
        "Name": Bucket,
        "Prefix": write(Prefix or ""),
        "MaxKeys": limit,
        "KeyCount": len(found.rows) + len(found.prefixes),
        **given(
            {
                "Delimiter": write(Delimiter) if Delimiter else None,
                "EncodingType": EncodingType,
                "StartAfter": write(StartAfter) if StartAfter else None,
                "ContinuationToken": ContinuationToken,
                "NextContinuationToken": token(found.last) if found.truncated else None,
            }
        ),
        **contents(found, write, owner_of(bucket.account) if FetchOwner else None),
    }


def token(last: str) -> str:
    """Return where a page ended, as an opaque text."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def place(token: str) -> str:
    """Return where the page before ended; AwsError InvalidArgument."""
    try:
        last = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        last = ""
    if not last:
        text = "The continuation token provided is incorrect"
        raise invalid_argument(text, "continuation-token", token)
    return last


@operation(permissions=[on_bucket("s3:ListBucketMultipartUploads")], on=executors.S3_READ)
def list_multipart_uploads(
    call: Call[S3],
    *,
    Bucket: str,
    Delimiter: str | None = None,
    EncodingType: str | None = None,
    KeyMarker: str | None = None,
    MaxUploads: int | None = None,
    Prefix: str | None = None,
    UploadIdMarker: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return the uploads under way by key and start, after the markers."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    limit, write = checked_limit("max-uploads", MaxUploads), encoder(EncodingType)
    prefix, key, id = Prefix or "", KeyMarker or "", UploadIdMarker or ""
    fetch = partial(fetch_uploads, call.store, Bucket)
    # Further uploads of the key that the page before ended with.
    same = fetch(key, key + "\0", ALL, True) if key and id else []
    resumed = [row for row in same if row.id > id]
    found = scan(fetch, prefix, Delimiter or "", key, limit, resumed)
    last = found.rows[-1] if found.rows else None
    ends_in_prefix = last is None or (found.prefixes and found.prefixes[-1] > last.key)
    result: dict[str, object] = {
        "Bucket": Bucket,
        "KeyMarker": write(key),
        "UploadIdMarker": id,
        "Prefix": write(prefix),
        "MaxUploads": limit,
        "IsTruncated": found.truncated,
        "Uploads": [shown(row, write, bucket.account) for row in found.rows],
        "CommonPrefixes": [{"Prefix": write(prefix)} for prefix in found.prefixes],
        **given(
            {
                "Delimiter": write(Delimiter) if Delimiter else None,
                "EncodingType": EncodingType,
            }
        ),
    }
    if found.truncated:
        result["NextKeyMarker"] = write(found.last)
        result["NextUploadIdMarker"] = "" if ends_in_prefix or last is None else last.id
    return result


def shown(row: UploadRow, write: partial[str], account: str) -> dict[str, object]:
    """Return an upload as lists show it."""
    document = load(row.document)
    fields: dict[str, object] = {
        "UploadId": row.id,
        "Key": write(row.key),
        "Initiated": from_ms(row.created),
        "StorageClass": document.storage_class,
        "Owner": owner_of(account),
        "Initiator": {"ID": row.initiator, "DisplayName": row.initiator.rpartition("/")[2]},
    }
    if document.checksum_algorithm:
        fields["ChecksumAlgorithm"] = document.checksum_algorithm
        fields["ChecksumType"] = document.checksum_type
    return fields
