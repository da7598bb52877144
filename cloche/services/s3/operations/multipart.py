"""Uploads in parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import Connection

from cloche.core import executors
from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.core.ids import blob_id
from cloche.operation import Body as Stream
from cloche.operation import Call, Result, operation
from cloche.records import objects as rows
from cloche.records.objects import ObjectRow, PartRow, UploadRow
from cloche.services.s3 import assembly
from cloche.services.s3.checksums import DEFAULT, TYPES, given, members
from cloche.services.s3.conditions import WriteGuard
from cloche.services.s3.document import Document, dump, load
from cloche.services.s3.encryption import sealed
from cloche.services.s3.errors import (
    invalid_argument,
    invalid_request,
    no_such_bucket,
    no_such_upload,
)
from cloche.services.s3.ingest import ChecksumClaim, Ingested, claim, ingest
from cloche.services.s3.operations.listing import checked_limit
from cloche.services.s3.ownership import check_upload_acl
from cloche.services.s3.permissions import on_object, write
from cloche.services.s3.requests import (
    bucket_of,
    check_key,
    check_signed,
    encryption,
    metadata,
    owner_of,
    storage_class,
    stored_headers,
    tags_of_header,
)
from cloche.services.s3.storage import S3


@operation(permissions=write(creates=False))
async def create_multipart_upload(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    ACL: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWriteACP: str | None = None,
    CacheControl: str | None = None,
    ContentDisposition: str | None = None,
    ContentEncoding: str | None = None,
    ContentLanguage: str | None = None,
    ContentType: str | None = None,
    Expires: datetime | None = None,
    Metadata: Mapping[str, str] | None = None,
    ServerSideEncryption: str | None = None,
    StorageClass: str | None = None,
    WebsiteRedirectLocation: str | None = None,
    SSEKMSKeyId: str | None = None,
    SSEKMSEncryptionContext: str | None = None,
    BucketKeyEnabled: bool | None = None,
    Tagging: str | None = None,
    ExpectedBucketOwner: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ChecksumType: str | None = None,
) -> Result:
    """Begin an upload; what the object will be like is said here."""
    check_signed(call, "initiate multipart uploads")
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    check_key(Key)
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWriteACP)
    check_upload_acl(call, bucket, Key, ACL, *grants)
    asked = encryption(ServerSideEncryption, SSEKMSKeyId, SSEKMSEncryptionContext, BucketKeyEnabled)
    document = Document(
        headers=stored_headers(
            call,
            cache_control=CacheControl,
            disposition=ContentDisposition,
            encoding=ContentEncoding,
            language=ContentLanguage,
            content_type=ContentType,
            redirect=WebsiteRedirectLocation,
        ),
        metadata=metadata(Metadata),
        tags=tags_of_header(Tagging),
        checksum_algorithm=ChecksumAlgorithm or "",
        checksum_type=checksum_type(ChecksumAlgorithm, ChecksumType),
        storage_class=storage_class(StorageClass),
        encryption=sealed(call.store.read(), Bucket, asked),
    )
    started = to_ms(call.now)
    # Uploads of one key are listed in the order of their start: ids begin with it.
    upload = UploadRow(
        Bucket, Key, f"{started:012x}{blob_id()}", started, dump(document), call.principal.arn
    )

    def change(connection: Connection) -> None:
        if rows.find_bucket(connection, Bucket) is None:
            raise no_such_bucket(Bucket)
        rows.add_upload(connection, upload)

    await call.store.write(change)
    result: dict[str, object] = {"Bucket": Bucket, "Key": Key, "UploadId": upload.id}
    result |= document.encryption
    if ChecksumAlgorithm is not None:
        result["ChecksumAlgorithm"] = ChecksumAlgorithm
        result["ChecksumType"] = document.checksum_type
    return result


def checksum_type(algorithm: str | None, kind: str | None) -> str:
    """Return the type of an upload's checksum; AwsError InvalidRequest for what can't be."""
    if algorithm is None:
        if kind is not None:
            raise invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm "
                "header."
            )
        return TYPES[DEFAULT][0]
    if algorithm not in TYPES:
        raise invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            f"types: [{', '.join(TYPES)}]"
        )
    if kind is None:
        return TYPES[algorithm][0]
    if kind not in TYPES[algorithm]:
        raise invalid_request(
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum "
            "algorithm."
        )
    return kind


def upload_of(call: Call[S3], bucket: str, key: str, id: str) -> UploadRow:
    """Return an upload under way; AwsError NoSuchUpload."""
    upload = rows.find_upload(call.store.read(), bucket, key, id)
    if upload is None:
        raise no_such_upload(id)
    return upload


def check_part_number(number: int) -> None:
    """Raise InvalidArgument for a part number that can't be."""
    if not 1 <= number <= rows.ALL_PARTS:
        text = f"Part number must be an integer between 1 and {rows.ALL_PARTS}, inclusive"
        raise invalid_argument(text, "partNumber", number)


@operation(permissions=write(creates=False))
async def upload_part(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    PartNumber: int,
    UploadId: str,
    Body: Stream | None = None,
    ContentLength: int | None = None,
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ChecksumCRC32: str | None = None,
    ChecksumCRC32C: str | None = None,
    ChecksumCRC64NVME: str | None = None,
    ChecksumSHA1: str | None = None,
    ChecksumSHA256: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Keep one part; one that is there under the number is replaced."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_part_number(PartNumber)
    upload = upload_of(call, Bucket, Key, UploadId)
    document = load(upload.document)
    sums = given(ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256)
    announced = document.checksum_algorithm
    claimed = claim(call.http, sums, ChecksumAlgorithm, ContentMD5, announced or DEFAULT)
    check_part_algorithm(announced, claimed)
    extra = () if announced else (DEFAULT,)
    new = await ingest(call.service, call.http.body, claimed, extra)
    await keep_part(call, upload, PartNumber, new)
    shown = {claimed.algorithm: new.checksums[claimed.algorithm]}
    return {"ETag": f'"{new.md5}"', **members(shown), **document.echo}


def check_part_algorithm(announced: str, claimed: ChecksumClaim) -> None:
    """Raise InvalidRequest for a part with another checksum than the upload announced."""
    if announced and claimed.algorithm != announced:
        raise invalid_request(
            f"Checksum Type mismatch occurred, expected checksum Type: {announced.lower()}, "
            f"actual checksum Type: {claimed.algorithm.lower()}"
        )


async def keep_part(call: Call[S3], upload: UploadRow, number: int, new: Ingested) -> PartRow:
    """Give a part its row, if the upload is still under way."""
    checksums = json.dumps(dict(new.checksums))
    part = PartRow(upload.id, number, new.size, new.md5, to_ms(call.now), new.blob, checksums)

    def change(connection: Connection) -> list[str]:
        if rows.find_upload(connection, upload.bucket, upload.key, upload.id) is None:
            raise no_such_upload(upload.id)
        old = rows.find_part(connection, upload.id, number)
        rows.put_part(connection, part)
        return [] if old is None else [old.blob]

    await call.service.settle(new.blob, change)
    return part


@operation(permissions=write(creates=True))
async def complete_multipart_upload(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    UploadId: str,
    MultipartUpload: Mapping[str, Any] | None = None,
    ChecksumCRC32: str | None = None,
    ChecksumCRC32C: str | None = None,
    ChecksumCRC64NVME: str | None = None,
    ChecksumSHA1: str | None = None,
    ChecksumSHA256: str | None = None,
    ChecksumType: str | None = None,
    MpuObjectSize: int | None = None,
    ExpectedBucketOwner: str | None = None,
    IfMatch: str | None = None,
    IfNoneMatch: str | None = None,
) -> Result:
    """Make the object of the parts; sent again after success, it answers the same."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    sums = given(ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256)
    upload = rows.find_upload(call.store.read(), Bucket, Key, UploadId)
    if upload is None:
        return completed(call, done_before(call, Bucket, Key, UploadId))
    claims = partial(assembly.check_claims, sums=sums, kind=ChecksumType, size=MpuObjectSize)
    asked = (MultipartUpload or {}).get("Parts", ())
    chosen, document = await executors.RECORDS.run(assembled, call, upload, asked, claims)
    pieces = [(part.blob, part.size) for part in chosen]
    try:
        blob = await executors.FILES.run(call.service.blobs.join, pieces)
    except FileNotFoundError:  # aborted, or completed by another call, meanwhile
        return completed(call, done_before(call, Bucket, Key, UploadId))
    digests = b"".join(bytes.fromhex(part.etag) for part in chosen)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(chosen)}"
    size = sum(part.size for part in chosen)
    row = ObjectRow(Bucket, Key, size, etag, to_ms(call.now), blob, document)

    def end(connection: Connection) -> list[str]:
        if rows.find_upload(connection, Bucket, Key, UploadId) is None:
            raise no_such_upload(UploadId)
        now = {part.number: part.blob for part in rows.parts(connection, UploadId)}
        if any(now.get(part.number) != part.blob for part in chosen):
            raise assembly.invalid_part(UploadId)
        return rows.delete_upload(connection, upload)

    try:
        await call.service.commit(row, WriteGuard(Key, IfMatch, IfNoneMatch), end)
    except AwsError as error:
        if error.code != "NoSuchUpload":
            raise
        row = done_before(call, Bucket, Key, UploadId)
    return completed(call, row)


def assembled(
    call: Call[S3],
    upload: UploadRow,
    asked: Sequence[Mapping[str, Any]],
    check: Callable[[Document, Sequence[PartRow]], None],
) -> tuple[list[PartRow], str]:
    """Return the parts that make the object, and its document. Blocks: there may be 10,000."""
    announced = load(upload.document)
    there = {part.number: part for part in rows.parts(call.store.read(), upload.id)}
    chosen = assembly.choose(asked, there, announced)
    document = assembly.assemble(announced, chosen, upload.id)
    check(document, chosen)
    return chosen, dump(document)


def done_before(call: Call[S3], bucket: str, key: str, upload: str) -> ObjectRow:
    """Return the object that this upload made already; AwsError NoSuchUpload."""
    row = rows.find_object(call.store.read(), bucket, key)
    if row is None or load(row.document).upload != upload:
        raise no_such_upload(upload)
    return row


def completed(call: Call[S3], row: ObjectRow) -> Result:
    """Return the answer to a CompleteMultipartUpload."""
    document = load(row.document)
    return {
        "Location": f"{call.http.base_url}/{row.bucket}/{quote(row.key)}",
        "Bucket": row.bucket,
        "Key": row.key,
        "ETag": f'"{row.etag}"',
        **members(document.checksums, document.checksum_type),
        **document.echo,
    }


@operation(permissions=[on_object("s3:AbortMultipartUpload")])
async def abort_multipart_upload(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    UploadId: str,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Drop an upload and its parts."""
    bucket_of(call, Bucket, ExpectedBucketOwner)

    def change(connection: Connection) -> list[str]:
        upload = rows.find_upload(connection, Bucket, Key, UploadId)
        if upload is None:
            raise no_such_upload(UploadId)
        return rows.delete_upload(connection, upload)

    call.service.remove(await call.store.write(change))


@operation(permissions=[on_object("s3:ListMultipartUploadParts")], on=executors.S3_READ)
def list_parts(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    UploadId: str,
    MaxParts: int | None = None,
    PartNumberMarker: int | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return an upload's parts after a number."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    upload = upload_of(call, Bucket, Key, UploadId)
    limit, after = checked_limit("max-parts", MaxParts), PartNumberMarker or 0
    document = load(upload.document)
    found = rows.parts(call.store.read(), UploadId, after, limit + 1)
    shown = [
        {
            "PartNumber": part.number,
            "LastModified": from_ms(part.modified),
            "ETag": f'"{part.etag}"',
            "Size": part.size,
            **members(json.loads(part.checksums)),
        }
        for part in found[:limit]
    ]
    result: dict[str, object] = {
        "Bucket": Bucket,
        "Key": Key,
        "UploadId": UploadId,
        "PartNumberMarker": after,
        "NextPartNumberMarker": found[len(shown) - 1].number if shown else 0,
        "MaxParts": limit,
        "IsTruncated": len(found) > limit > 0,
        "Parts": shown,
        "Initiator": {
            "ID": upload.initiator,
            "DisplayName": upload.initiator.rpartition("/")[2],
        },
        "Owner": owner_of(bucket.account),
        "StorageClass": document.storage_class,
    }
    if document.checksum_algorithm:
        result["ChecksumAlgorithm"] = document.checksum_algorithm
        result["ChecksumType"] = document.checksum_type
    return result
