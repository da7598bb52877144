"""Copies of objects, whole or as parts of an upload."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.operation import Call, Result, operation
from cloche.records.objects import ObjectRow
from cloche.services.s3.blobs import PIECE
from cloche.services.s3.checksums import DEFAULT, SUMS, members
from cloche.services.s3.conditions import Conditions, WriteGuard, check_copy
from cloche.services.s3.document import Document, Texts, dump, load
from cloche.services.s3.encryption import sealed
from cloche.services.s3.errors import invalid_argument, invalid_request
from cloche.services.s3.ingest import LARGEST, ChecksumClaim, Digests, Ingested, Intake
from cloche.services.s3.operations.multipart import check_part_number, keep_part, upload_of
from cloche.services.s3.ownership import check_upload_acl
from cloche.services.s3.permissions import (
    COPY_TAGS,
    READ,
    READ_TAGS,
    missing_if_listed,
    write,
)
from cloche.services.s3.requests import (
    bucket_of,
    check_key,
    check_signed,
    copy_source,
    encryption,
    metadata,
    storage_class,
    stored_headers,
    tags_of_header,
)
from cloche.services.s3.storage import S3, for_bytes

RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})")
TO_ITSELF = (
    "This copy request is illegal because it is trying to copy an object to itself without "
    "changing the object's metadata, storage class, website redirect location or encryption "
    "attributes."
)


@operation(permissions=write(creates=True), further=(*READ, *READ_TAGS, COPY_TAGS))
async def copy_object(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    CopySource: str,
    ACL: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWriteACP: str | None = None,
    CacheControl: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ContentDisposition: str | None = None,
    ContentEncoding: str | None = None,
    ContentLanguage: str | None = None,
    ContentType: str | None = None,
    CopySourceIfMatch: str | None = None,
    CopySourceIfModifiedSince: datetime | None = None,
    CopySourceIfNoneMatch: str | None = None,
    CopySourceIfUnmodifiedSince: datetime | None = None,
    Expires: datetime | None = None,
    IfMatch: str | None = None,
    IfNoneMatch: str | None = None,
    Metadata: Mapping[str, str] | None = None,
    MetadataDirective: str | None = None,
    TaggingDirective: str | None = None,
    ServerSideEncryption: str | None = None,
    StorageClass: str | None = None,
    WebsiteRedirectLocation: str | None = None,
    SSEKMSKeyId: str | None = None,
    SSEKMSEncryptionContext: str | None = None,
    BucketKeyEnabled: bool | None = None,
    Tagging: str | None = None,
    ExpectedBucketOwner: str | None = None,
    ExpectedSourceBucketOwner: str | None = None,
) -> Result:
    """Copy an object: a hard link beside it, so that size does not matter."""
    check_signed(call, "copy objects")
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    check_key(Key)
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWriteACP)
    check_upload_acl(call, bucket, Key, ACL, *grants)
    source = source_of(call, CopySource, ExpectedSourceBucketOwner)
    check_copy(
        Conditions(
            CopySourceIfMatch,
            CopySourceIfNoneMatch,
            CopySourceIfModifiedSince,
            CopySourceIfUnmodifiedSince,
        ),
        source,
    )
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
    if directive(MetadataDirective, "metadata") == "COPY":
        same = (source.bucket, source.key) == (Bucket, Key)
        if same and not (StorageClass or WebsiteRedirectLocation or asked):
            raise invalid_request(TO_ITSELF)
        headers, kept = copied_headers(source, WebsiteRedirectLocation)
    else:
        kept = metadata(Metadata)
    copied_tags = directive(TaggingDirective, "tagging") == "COPY"
    tags = load(source.document).tags if copied_tags else tags_of_header(Tagging)
    if copied_tags and tags:
        may_copy_tags(call, source, Bucket, Key)
    document = Document(
        headers=headers,
        metadata=kept,
        tags=tags,
        storage_class=storage_class(StorageClass),
        encryption=sealed(call.store.read(), Bucket, asked),
    )
    row = await copied(call, source, (Bucket, Key), document, ChecksumAlgorithm)
    await call.service.commit(row, WriteGuard(Key, IfMatch, IfNoneMatch))
    kept_with = load(row.document)
    return {
        "CopyObjectResult": {
            "ETag": f'"{row.etag}"',
            "LastModified": from_ms(row.modified),
            **members(kept_with.checksums, kept_with.checksum_type),
        },
        **document.encryption,
    }


def source_of(call: Call[S3], text: str, expected_owner: str | None) -> ObjectRow:
    """Return the object to copy; AwsError NoSuchBucket, NoSuchKey, AccessDenied."""
    bucket, key = copy_source(text)
    source = {"Bucket": bucket, "Key": key}
    for needed in READ:
        needed.authorize(call, source)
    bucket_of(call, bucket, expected_owner)
    with missing_if_listed(call, bucket):
        return call.service.row(bucket, key)


def may_copy_tags(call: Call[S3], source: ObjectRow, bucket: str, key: str) -> None:
    """Ask for the tags of an object that are copied with it; AccessDenied."""
    for needed in READ_TAGS:
        needed.authorize(call, {"Bucket": source.bucket, "Key": source.key})
    COPY_TAGS.authorize(call, {"Bucket": bucket, "Key": key})


def directive(value: str | None, of: str) -> str:
    """Return COPY or REPLACE; AwsError InvalidArgument."""
    if value not in (None, "COPY", "REPLACE"):
        text = f"Unknown {of} directive."
        raise invalid_argument(text, f"x-amz-{of}-directive", value)
    return value or "COPY"


def copied_headers(
    source: ObjectRow, redirect: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return headers and metadata of a copy; where a website redirects to is not copied."""
    document = load(source.document)
    headers = {k: v for k, v in document.headers.items() if k != "WebsiteRedirectLocation"}
    if redirect is not None:
        headers["WebsiteRedirectLocation"] = redirect
    return headers, dict(document.metadata)


async def copied(
    call: Call[S3],
    source: ObjectRow,
    target: tuple[str, str],
    document: Document,
    algorithm: str | None,
) -> ObjectRow:
    """Return the row of a copy whose blob is durable.

    An object that was uploaded in parts is one piece as a copy: then, and where another checksum
    is wanted, the content is read to hash it.
    """
    if source.size > LARGEST:
        raise invalid_request(
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {LARGEST}"
        )
    if algorithm is not None and algorithm not in SUMS:
        raise invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            f"types: [{', '.join(SUMS)}]"
        )
    known = load(source.document)
    wanted = algorithm or next(iter(known.checksums), DEFAULT)
    s3 = call.service
    on = for_bytes(source.size)
    etag, checksums = source.etag, known.checksums
    try:
        if known.parts or wanted not in checksums:
            path = s3.blobs.path(source.blob)
            etag, checksums = await on.run(digests, path, source.size, wanted)
        blob = await on.run(s3.blobs.copy, source.blob)
    except FileNotFoundError:  # replaced or deleted meanwhile
        newer = s3.row(source.bucket, source.key)
        return await copied(call, newer, target, document, algorithm)
    document = document.replace(checksums=checksums, checksum_type="FULL_OBJECT")
    return ObjectRow(*target, source.size, etag, to_ms(call.now), blob, dump(document))


def digests(path: Path, size: int, algorithm: str) -> tuple[str, Texts]:
    """Return a file's MD5 and checksum. Blocks."""
    found = Digests(algorithm)
    for piece in pieces(path, 0, size):
        found.update(piece)
    return found.md5.hexdigest(), found.checksums()


def pieces(path: Path, offset: int, length: int) -> Iterator[bytes]:
    """Yield a file's bytes from `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0:
            piece = file.read(min(PIECE, length))
            if not piece:
                return
            length -= len(piece)
            yield piece


@operation(permissions=write(creates=False), further=READ)
async def upload_part_copy(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    CopySource: str,
    PartNumber: int,
    UploadId: str,
    CopySourceIfMatch: str | None = None,
    CopySourceIfModifiedSince: datetime | None = None,
    CopySourceIfNoneMatch: str | None = None,
    CopySourceIfUnmodifiedSince: datetime | None = None,
    CopySourceRange: str | None = None,
    ExpectedBucketOwner: str | None = None,
    ExpectedSourceBucketOwner: str | None = None,
) -> Result:
    """Keep an object, or a range of it, as one part of an upload."""
    check_signed(call, "copy objects")
    bucket_of(call, Bucket, ExpectedBucketOwner)
    check_part_number(PartNumber)
    upload = upload_of(call, Bucket, Key, UploadId)
    source = source_of(call, CopySource, ExpectedSourceBucketOwner)
    check_copy(
        Conditions(
            CopySourceIfMatch,
            CopySourceIfNoneMatch,
            CopySourceIfModifiedSince,
            CopySourceIfUnmodifiedSince,
        ),
        source,
    )
    offset, length = source_range(CopySourceRange, source.size)
    announced = load(upload.document)
    algorithm = announced.checksum_algorithm or DEFAULT
    try:
        new = await for_bytes(length).run(
            ingest_piece, call.service, source.blob, offset, length, algorithm
        )
    except FileNotFoundError as error:
        # The object was replaced since the conditions were checked: the client may try again.
        text = "We encountered an internal error. Please try again."
        raise AwsError("ServiceUnavailable", text, 503) from error
    part = await keep_part(call, upload, PartNumber, new)
    shown = new.checksums if announced.checksum_algorithm else {}
    return {
        "CopyPartResult": {
            "ETag": f'"{part.etag}"',
            "LastModified": from_ms(part.modified),
            **members(shown),
        },
        **announced.echo,
    }


def source_range(text: str | None, size: int) -> tuple[int, int]:
    """Return offset and length of the bytes to copy; AwsError InvalidArgument."""
    if text is None:
        return 0, size
    match = RANGE.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        message = (
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first "
            "and last are the zero-based offsets of the first and last bytes to copy"
        )
        raise invalid_argument(message, "x-amz-copy-source-range", text)
    first, last = int(match[1]), int(match[2])
    if last >= size:
        message = f"Range specified is not valid for source object of size: {size}"
        raise invalid_argument(message, "x-amz-copy-source-range", text)
    return first, last - first + 1


def ingest_piece(s3: S3, blob: str, offset: int, length: int, algorithm: str) -> Ingested:
    """Return a piece of a blob as a new one. Blocks."""
    intake = Intake(s3.blobs.create(), ChecksumClaim(algorithm, None, False, None))
    try:
        for piece in pieces(s3.blobs.path(blob), offset, length):
            intake.take([piece])
        return intake.finish((), length, {})
    except BaseException:
        intake.writer.discard()
        raise
