"""Tags of objects, and what else is asked about one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.engine import Connection

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.operation import Call, Result, operation
from cloche.records import objects as rows
from cloche.services.s3.checksums import members
from cloche.services.s3.document import Document, dump, load
from cloche.services.s3.errors import invalid_argument, no_such_key
from cloche.services.s3.operations.bucket import access_list
from cloche.services.s3.permissions import (
    DOCUMENT_TAGS,
    EXISTING_TAGS,
    READ,
    READ_TAGS,
    missing_if_listed,
    on_version,
)
from cloche.services.s3.requests import Tag, bucket_of, check_version, tags_of_set
from cloche.services.s3.storage import S3

ATTRIBUTES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
MOST_PARTS = 1000


@operation(permissions=READ_TAGS)
def get_object_tagging(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    VersionId: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return an object's tags, by key."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    tags = load(call.service.row(Bucket, Key).document).tags
    return {"TagSet": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


@operation(
    permissions=on_version(
        "s3:PutObjectTagging", "s3:PutObjectVersionTagging", DOCUMENT_TAGS, EXISTING_TAGS
    )
)
async def put_object_tagging(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    Tagging: Mapping[str, Sequence[Tag]],
    VersionId: str | None = None,
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Set an object's tags, in place of those it has."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    tags = tags_of_set(Tagging.get("TagSet", ()))
    await change_document(call, Bucket, Key, lambda document: document.replace(tags=tags))
    return {}


@operation(
    permissions=on_version("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging", EXISTING_TAGS)
)
async def delete_object_tagging(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    VersionId: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Remove an object's tags."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    await change_document(call, Bucket, Key, lambda document: document.replace(tags={}))


async def change_document(
    call: Call[S3], bucket: str, key: str, edit: Callable[[Document], Document]
) -> None:
    """Change what is kept with an object, in one transaction; AwsError NoSuchKey."""

    def change(connection: Connection) -> None:
        row = rows.find_object(connection, bucket, key)
        if row is None:
            raise no_such_key(key)
        rows.set_document(connection, bucket, key, dump(edit(load(row.document))))

    await call.store.write(change)


@operation(permissions=on_version("s3:GetObjectAcl", "s3:GetObjectVersionAcl", EXISTING_TAGS))
def get_object_acl(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    VersionId: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return what holds for every object: the owner may do anything, nobody else."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    call.service.row(Bucket, Key)
    return access_list(bucket.account)


@operation(
    permissions=(
        *READ,
        *on_version("s3:GetObjectAttributes", "s3:GetObjectVersionAttributes", EXISTING_TAGS),
    ),
    on=executors.S3_READ,
)
def get_object_attributes(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    ObjectAttributes: Sequence[str],
    VersionId: str | None = None,
    MaxParts: int | None = None,
    PartNumberMarker: int | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return those attributes that are asked for."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    for name in ObjectAttributes:
        if name not in ATTRIBUTES:
            text = "Invalid attribute name specified."
            raise invalid_argument(text, "x-amz-object-attributes", name)
    with missing_if_listed(call, Bucket):
        row = call.service.row(Bucket, Key)
    document = load(row.document)
    known: dict[str, object] = {
        "ETag": row.etag,
        "StorageClass": document.storage_class,
        "ObjectSize": row.size,
    }
    if document.checksums:
        known["Checksum"] = members(document.checksums, document.checksum_type)
    if document.parts:
        known["ObjectParts"] = object_parts(document, MaxParts, PartNumberMarker)
    result = {name: known[name] for name in ObjectAttributes if name in known}
    return {"LastModified": from_ms(row.modified), **result}


def object_parts(document: Document, limit: int | None, after: int | None) -> dict[str, object]:
    """Return the parts of an object that was uploaded in parts.

    One by one only where the parts have checksums, as S3 does.
    """
    result: dict[str, object] = {"TotalPartsCount": len(document.parts)}
    if not document.parts[0].checksums:
        return result
    most, start = min(limit or MOST_PARTS, MOST_PARTS), after or 0
    shown = document.parts[start : start + most]
    return {
        **result,
        "PartNumberMarker": start,
        "NextPartNumberMarker": start + len(shown),
        "MaxParts": most,
        "IsTruncated": start + len(shown) < len(document.parts),
        "Parts": [
            {"PartNumber": number, "Size": part.size, **members(part.checksums)}
            for number, part in enumerate(shown, start + 1)
        ],
    }
