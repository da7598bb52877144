"""Objects: put, get, head, delete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from cloche.core.authorization import Refused
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Body as Stream
from cloche.operation import Call, FileSlice, Reply, Result, operation
from cloche.records import objects as rows
from cloche.records.objects import ObjectRow
from cloche.services.s3.checksums import given, members
from cloche.services.s3.conditions import Conditions, WriteGuard, check_read, matches
from cloche.services.s3.describe import Override, describe, select
from cloche.services.s3.document import Document, dump, load
from cloche.services.s3.encryption import sealed
from cloche.services.s3.errors import malformed_xml, precondition_failed
from cloche.services.s3.ingest import claim, ingest
from cloche.services.s3.ownership import check_upload_acl
from cloche.services.s3.permissions import DELETE, DELETE_EACH, READ, missing_if_listed, write
from cloche.services.s3.requests import (
    bucket_of,
    check_key,
    check_version,
    encryption,
    metadata,
    storage_class,
    stored_headers,
    tags_of_header,
)
from cloche.services.s3.storage import S3

MOST_DELETES = 1000  # keys of one DeleteObjects


@operation(permissions=write(creates=True))
async def put_object(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    Body: Stream | None = None,
    ACL: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWriteACP: str | None = None,
    CacheControl: str | None = None,
    ContentDisposition: str | None = None,
    ContentEncoding: str | None = None,
    ContentLanguage: str | None = None,
    ContentLength: int | None = None,
    ContentMD5: str | None = None,
    ContentType: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ChecksumCRC32: str | None = None,
    ChecksumCRC32C: str | None = None,
    ChecksumCRC64NVME: str | None = None,
    ChecksumSHA1: str | None = None,
    ChecksumSHA256: str | None = None,
    Expires: datetime | None = None,
    IfMatch: str | None = None,
    IfNoneMatch: str | None = None,
    Metadata: Mapping[str, str] | None = None,
    ServerSideEncryption: str | None = None,
    StorageClass: str | None = None,
    WebsiteRedirectLocation: str | None = None,
    SSEKMSKeyId: str | None = None,
    SSEKMSEncryptionContext: str | None = None,
    BucketKeyEnabled: bool | None = None,
    Tagging: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Keep an object: durable, and whole, when this returns."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    check_key(Key)
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWriteACP)
    check_upload_acl(call, bucket, Key, ACL, *grants)
    sums = given(ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256)
    claimed = claim(call.http, sums, ChecksumAlgorithm, ContentMD5)
    asked = encryption(ServerSideEncryption, SSEKMSKeyId, SSEKMSEncryptionContext, BucketKeyEnabled)
    headers = stored_headers(
        call,
        cache_control=CacheControl,
        disposition=ContentDisposition,
        encoding=ContentEncoding,
        language=ContentLanguage,
        content_type=ContentType,
        redirect=WebsiteRedirectLocation,
    )
    kept, tags, tier = metadata(Metadata), tags_of_header(Tagging), storage_class(StorageClass)
    new = await ingest(call.service, call.http.body, claimed)
    document = Document(
        headers=headers,
        metadata=kept,
        tags=tags,
        checksums=new.checksums,
        checksum_type="FULL_OBJECT",
        storage_class=tier,
        encryption=sealed(call.store.read(), Bucket, asked),
    )
    row = ObjectRow(Bucket, Key, new.size, new.md5, to_ms(call.now), new.blob, dump(document))
    await call.service.commit(row, WriteGuard(Key, IfMatch, IfNoneMatch))
    return {"ETag": f'"{new.md5}"', **members(new.checksums, "FULL_OBJECT"), **document.encryption}


@operation(permissions=READ)
def get_object(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    IfMatch: str | None = None,
    IfModifiedSince: datetime | None = None,
    IfNoneMatch: str | None = None,
    IfUnmodifiedSince: datetime | None = None,
    Range: str | None = None,
    ResponseCacheControl: str | None = None,
    ResponseContentDisposition: str | None = None,
    ResponseContentEncoding: str | None = None,
    ResponseContentLanguage: str | None = None,
    ResponseContentType: str | None = None,
    ResponseExpires: datetime | None = None,
    VersionId: str | None = None,
    PartNumber: int | None = None,
    ChecksumMode: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return an object, or a range of it, straight from its file."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    override = Override(
        cache_control=ResponseCacheControl,
        disposition=ResponseContentDisposition,
        encoding=ResponseContentEncoding,
        language=ResponseContentLanguage,
        content_type=ResponseContentType,
        expires=ResponseExpires,
    )
    with missing_if_listed(call, Bucket):
        row, fd = call.service.open(Bucket, Key)
    try:
        check_read(Conditions(IfMatch, IfNoneMatch, IfModifiedSince, IfUnmodifiedSince), row)
        document = load(row.document)
        piece = select(row, document, Range, PartNumber)
        reply = describe(row, document, piece, override, checksums=ChecksumMode == "ENABLED")
    except BaseException:
        os.close(fd)
        raise
    body = FileSlice(fd, piece.offset, piece.length)
    return Reply({**reply.result, "Body": body}, reply.status, reply.headers)


@operation(permissions=READ)
def head_object(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    IfMatch: str | None = None,
    IfModifiedSince: datetime | None = None,
    IfNoneMatch: str | None = None,
    IfUnmodifiedSince: datetime | None = None,
    Range: str | None = None,
    ResponseCacheControl: str | None = None,
    ResponseContentDisposition: str | None = None,
    ResponseContentEncoding: str | None = None,
    ResponseContentLanguage: str | None = None,
    ResponseContentType: str | None = None,
    ResponseExpires: datetime | None = None,
    VersionId: str | None = None,
    PartNumber: int | None = None,
    ChecksumMode: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return what GetObject would, save the content."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    override = Override(
        cache_control=ResponseCacheControl,
        disposition=ResponseContentDisposition,
        encoding=ResponseContentEncoding,
        language=ResponseContentLanguage,
        content_type=ResponseContentType,
        expires=ResponseExpires,
    )
    with missing_if_listed(call, Bucket):
        row = call.service.row(Bucket, Key)
    check_read(Conditions(IfMatch, IfNoneMatch, IfModifiedSince, IfUnmodifiedSince), row)
    document = load(row.document)
    piece = select(row, document, Range, PartNumber)
    return describe(row, document, piece, override, checksums=ChecksumMode == "ENABLED")


@operation(permissions=DELETE)
async def delete_object(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    VersionId: str | None = None,
    IfMatch: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Remove an object; one that is not there is no error."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    guard = WriteGuard(Key, IfMatch, None)

    def change(connection: Connection) -> list[str]:
        there = rows.find_object(connection, Bucket, Key)
        guard(there)
        rows.delete_object(connection, Bucket, Key)
        return [] if there is None else [there.blob]

    call.service.remove(await call.store.write(change))


@operation(permissions=[], further=DELETE_EACH)
async def delete_objects(
    call: Call[S3],
    *,
    Bucket: str,
    Delete: Mapping[str, Any],
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Remove up to 1,000 objects in one transaction; each may fail by itself."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    asked: list[Mapping[str, Any]] = list(Delete.get("Objects", ()))
    if not 1 <= len(asked) <= MOST_DELETES or not all(one["Key"] for one in asked):
        raise malformed_xml()
    for name in ("LastModifiedTime", "Size"):  # conditions: what they spare must stay
        if any(name in one for one in asked):
            raise unsupported(f"Delete.Objects.{name}", "ETag is.")

    refused = may_not_delete(call, Bucket, asked)

    def change(connection: Connection) -> tuple[list[str], list[dict[str, str]]]:
        gone: list[str] = []
        errors: list[dict[str, str]] = []
        for one in asked:
            there = rows.find_object(connection, Bucket, one["Key"])
            error = refused.get(one["Key"]) or refusal(one, there)
            if error is not None:
                errors.append({"Key": one["Key"], "Code": error.code, "Message": error.message})
            elif there is not None:
                rows.delete_object(connection, Bucket, one["Key"])
                gone.append(there.blob)
        return gone, errors

    gone, errors = await call.store.write(change)
    call.service.remove(gone)
    failed = {error["Key"] for error in errors}
    deleted = [{"Key": one["Key"]} for one in asked if one["Key"] not in failed]
    result: dict[str, object] = {} if Delete.get("Quiet") else {"Deleted": deleted}
    return {**result, "Errors": errors} if errors else result


def may_not_delete(
    call: Call[S3], bucket: str, asked: list[Mapping[str, Any]]
) -> Mapping[str, AwsError]:
    """Return the keys that the caller may not delete, and why."""
    refused: dict[str, AwsError] = {}
    for one in asked:
        try:
            for needed in DELETE_EACH:
                needed.authorize(call, {**one, "Bucket": bucket})
        except Refused as error:
            refused[one["Key"]] = error
    return refused


def refusal(asked: Mapping[str, Any], there: ObjectRow | None) -> AwsError | None:
    """Return why one object of a DeleteObjects is not removed; None: it is."""
    if asked.get("VersionId") not in (None, "null"):
        text = "The specified version does not exist."
        return AwsError("NoSuchVersion", text, 404)
    etag = asked.get("ETag")
    if etag is not None and (there is None or not matches(etag, there.etag)):
        return precondition_failed("If-Match")
    return None
