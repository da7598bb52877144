"""An object as GetObject and HeadObject describe it, whole or in part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from cloche.core.clock import from_ms
from cloche.core.errors import AwsError
from cloche.core.numbers import natural
from cloche.operation import Reply
from cloche.records.objects import ObjectRow
from cloche.services.s3.checksums import members
from cloche.services.s3.document import Document
from cloche.services.s3.errors import invalid_argument, invalid_request

RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*")
LAST_PART = 10_000
LARGEST_OFFSET = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Headers that the client wants instead of those that are kept."""

    cache_control: str | None
    disposition: str | None
    encoding: str | None
    language: str | None
    content_type: str | None
    expires: datetime | None

    def headers(self) -> dict[str, str]:
        """Return them under the names of the result's members."""
        wanted = {
            "CacheControl": self.cache_control,
            "ContentDisposition": self.disposition,
            "ContentEncoding": self.encoding,
            "ContentLanguage": self.language,
            "ContentType": self.content_type,
            "Expires": format_datetime(self.expires, usegmt=True) if self.expires else None,
        }
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes that are wanted; `partial`: the answer is 206. `parts` counts an upload's parts."""

    offset: int
    length: int
    partial: bool = False
    parts: int | None = None


def select(row: ObjectRow, document: Document, asked: str | None, part: int | None) -> ByteRange:
    """Return the bytes that a range or a part number means.

    AwsError InvalidRange, InvalidPartNumber (416). A range that can't be read, or several, is
    ignored, as S3 does.
    """
    if part is not None:
        if asked is not None:
            raise invalid_request("Cannot specify both Range header and partNumber query parameter")
        return select_part(row, document, part)
    match = RANGE.fullmatch(asked) if asked is not None else None
    if match is None or not any(match.groups()):
        return ByteRange(0, row.size)
    first, last = (natural(text, LARGEST_OFFSET) if text else None for text in match.groups())
    if first is None:
        start, end = max(row.size - (last or 0), 0), row.size - 1
    else:
        if last is not None and last < first:
            return ByteRange(0, row.size)
        start, end = first, row.size - 1 if last is None else min(last, row.size - 1)
    if start >= row.size:
        fields = {"RangeRequested": asked, "ActualObjectSize": str(row.size)}
        headers = {"content-range": f"bytes */{row.size}"}
        text = "The requested range is not satisfiable"
        raise AwsError("InvalidRange", text, 416, fields=fields, headers=headers)
    return ByteRange(start, end - start + 1, partial=True)


def select_part(row: ObjectRow, document: Document, part: int) -> ByteRange:
    """Return the bytes of one part; an object that was not uploaded in parts has one."""
    if not 1 <= part <= LAST_PART:
        text = f"Part number must be an integer between 1 and {LAST_PART}, inclusive"
        raise invalid_argument(text, "partNumber", part)
    sizes = [one.size for one in document.parts] or [row.size]
    if part > len(sizes):
        fields = {"PartNumberRequested": str(part), "ActualPartCount": str(len(sizes))}
        text = "The requested partnumber is not satisfiable"
        raise AwsError("InvalidPartNumber", text, 416, fields=fields)
    count = len(document.parts) or None
    return ByteRange(sum(sizes[: part - 1]), sizes[part - 1], row.size > 0, count)


def describe(
    row: ObjectRow, document: Document, piece: ByteRange, override: Override, *, checksums: bool
) -> Reply:
    """Return the members and headers of a GetObject or HeadObject."""
    kept: Mapping[str, str] = {**document.headers, **override.headers()}
    result: dict[str, object] = {
        "AcceptRanges": "bytes",
        "LastModified": from_ms(row.modified),
        "ContentLength": piece.length,
        "ETag": f'"{row.etag}"',
        "Metadata": document.metadata,
        **{name: value for name, value in kept.items() if name != "Expires"},
        **document.echo,
    }
    if document.storage_class != "STANDARD":
        result["StorageClass"] = document.storage_class
    if document.tags:
        result["TagCount"] = len(document.tags)
    if piece.parts is not None:
        result["PartsCount"] = piece.parts
    if piece.partial:
        end = piece.offset + piece.length - 1
        result["ContentRange"] = f"bytes {piece.offset}-{end}/{row.size}"
    elif checksums:
        result |= members(document.checksums, document.checksum_type)
    headers = {"expires": kept["Expires"]} if "Expires" in kept else {}
    return Reply(result, 206 if piece.partial else None, headers)
