"""ListObjectVersions: of buckets without versions, where each object has the one, `null`."""

from __future__ import annotations

from collections.abc import Sequence

from cloche.core import executors
from cloche.operation import Call, Result, operation
from cloche.services.s3.errors import invalid_argument
from cloche.services.s3.operations.listing import (
    checked_limit,
    encoder,
    entry,
    given,
    scan_objects,
)
from cloche.services.s3.permissions import LIST_KEYS, on_bucket
from cloche.services.s3.requests import bucket_of, owner_of
from cloche.services.s3.storage import S3

ONLY = "null"  # the version of an object that was never given one


@operation(permissions=[on_bucket("s3:ListBucketVersions", *LIST_KEYS)], on=executors.S3_READ)
def list_object_versions(
    call: Call[S3],
    *,
    Bucket: str,
    Delimiter: str | None = None,
    EncodingType: str | None = None,
    KeyMarker: str | None = None,
    MaxKeys: int | None = None,
    Prefix: str | None = None,
    VersionIdMarker: str | None = None,
    OptionalObjectAttributes: Sequence[str] | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return the objects after `KeyMarker`, which has no further version."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    limit, write = checked_limit("max-keys", MaxKeys), encoder(EncodingType)
    prefix, delimiter, key = Prefix or "", Delimiter or "", KeyMarker or ""
    if VersionIdMarker is not None:
        check_marker(VersionIdMarker, key)
    found = scan_objects(call, Bucket, prefix, delimiter, key, limit)
    owner = owner_of(bucket.account)
    result: dict[str, object] = {
        "Name": Bucket,
        "Prefix": write(prefix),
        "KeyMarker": write(key),
        "VersionIdMarker": VersionIdMarker or "",
        "MaxKeys": limit,
        "IsTruncated": found.truncated,
        "Versions": [
            {**entry(row, write, owner), "VersionId": ONLY, "IsLatest": True} for row in found.rows
        ],
        "CommonPrefixes": [{"Prefix": write(one)} for one in found.prefixes],
        **given(
            {
                "Delimiter": write(delimiter) if delimiter else None,
                "EncodingType": EncodingType,
            }
        ),
    }
    if found.truncated:
        result["NextKeyMarker"] = write(found.last)
        if found.rows and found.rows[-1].key == found.last:
            result["NextVersionIdMarker"] = ONLY
    return result


def check_marker(version: str, key: str) -> None:
    """Raise for a marker that no page ended with."""
    if not key:
        text = "A version-id marker cannot be specified without a key marker."
        raise invalid_argument(text, "version-id-marker", version)
    if version not in ("", ONLY):
        raise invalid_argument("Invalid version id specified", "version-id-marker", version)
