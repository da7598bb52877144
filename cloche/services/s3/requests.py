"""What many operations ask of their parameters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict
from urllib.parse import parse_qsl, unquote

from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call
from cloche.records import objects as rows
from cloche.records.objects import BucketRow
from cloche.services.s3.errors import access_denied, invalid_argument, no_such_bucket
from cloche.services.s3.storage import DEFAULT_TYPE, S3

METADATA_LIMIT, KEY_LIMIT = 2048, 1024  # bytes
TAGS, TAG_KEY, TAG_VALUE = 10, 128, 256
TAG = re.compile(r"[\w\s+\-=.:/@]*")
# Those whose objects can be read at once. https://aws.amazon.com/s3/storage-classes/
STORAGE_CLASSES = (
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
)


class Tag(TypedDict):
    """A tag as the API writes it."""

    Key: str
    Value: str


class Owner(TypedDict):
    """The owner of a bucket or object."""

    ID: str


def bucket_of(call: Call[S3], name: str, expected_owner: str | None) -> BucketRow:
    """Return a bucket that the caller may use: that was asked; AwsError NoSuchBucket, AccessDenied
    where it is not whose the caller takes it for.
    """
    found = rows.find_bucket(call.store.read(), name)
    if found is None:
        raise no_such_bucket(name)
    if expected_owner not in (None, found.account):
        raise access_denied()
    return found


def own_bucket_of(call: Call[S3], name: str, expected_owner: str | None) -> BucketRow:
    """Return a bucket of the caller's account; AwsError MethodNotAllowed for others, whatever its
    policy says.
    """
    found = bucket_of(call, name, expected_owner)
    if found.account != call.account:
        text = "The specified method is not allowed against this resource."
        raise AwsError("MethodNotAllowed", text, 405)
    return found


def check_signed(call: Call[S3], what: str) -> None:
    """Raise AccessDenied where nobody signed a request that S3 takes from nobody."""
    if call.principal.kind == "anonymous":
        raise AwsError("AccessDenied", f"Anonymous users cannot {what}.  Please authenticate.", 403)


def owner_of(account: str) -> Owner:
    """Return an account's canonical user: 64 hexadecimal digits, derived from its number."""
    return {"ID": hashlib.sha256(f"canonical user of {account}".encode()).hexdigest()}


def check_version(version: str | None) -> None:
    """Raise unless the version is the one that an object of an unversioned bucket has: `null`."""
    if version not in (None, "null"):
        raise invalid_argument("Invalid version id specified", "versionId", version)


def check_key(key: str) -> None:
    """Raise KeyTooLongError for a key that is too long."""
    size = len(key.encode())
    if size > KEY_LIMIT:
        fields = {"Size": str(size), "MaxSizeAllowed": str(KEY_LIMIT)}
        raise AwsError("KeyTooLongError", "Your key is too long", 400, fields=fields)


def storage_class(name: str | None) -> str:
    """Return the storage class to note; refused: those whose objects must be restored first."""
    if name is None or name in STORAGE_CLASSES:
        return name or "STANDARD"
    if name in ("GLACIER", "DEEP_ARCHIVE"):
        raise unsupported(f"the storage class {name}", f"It has {', '.join(STORAGE_CLASSES)}.")
    text = "The storage class you specified is not valid"
    fields = {"StorageClassRequested": name}
    raise AwsError("InvalidStorageClass", text, 400, fields=fields)


def encryption(
    algorithm: str | None, key: str | None, context: str | None, bucket_key: bool | None
) -> dict[str, str | bool]:
    """Return what is kept of, and echoed for, an encryption that was asked for.

    A KMS algorithm without a key is normal: it means the account's own key.
    """
    if algorithm is None:
        if key is not None:
            text = (
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                "x-amz-server-side-encryption : aws:kms"
            )
            raise invalid_argument(text, "x-amz-server-side-encryption", "null")
        return {}
    if algorithm not in ("AES256", "aws:kms", "aws:kms:dsse"):
        text = "The encryption method specified is not supported"
        raise invalid_argument(text, "x-amz-server-side-encryption", algorithm)
    asked = {
        "ServerSideEncryption": algorithm,
        "SSEKMSKeyId": key,
        "SSEKMSEncryptionContext": context,
        "BucketKeyEnabled": bucket_key,
    }
    return {name: value for name, value in asked.items() if value is not None}


def metadata(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the user's metadata; AwsError MetadataTooLarge."""
    kept = {name.lower(): value for name, value in (given or {}).items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in kept.items())
    if size > METADATA_LIMIT:
        text = "Your metadata headers exceed the maximum allowed metadata size"
        fields = {"Size": str(size), "MaxSizeAllowed": str(METADATA_LIMIT)}
        raise AwsError("MetadataTooLarge", text, 400, fields=fields)
    return kept


def stored_headers(
    call: Call[S3],
    *,
    cache_control: str | None,
    disposition: str | None,
    encoding: str | None,
    language: str | None,
    content_type: str | None,
    redirect: str | None,
) -> dict[str, str]:
    """Return the headers that are kept with an object, under the names of its parameters.

    `Expires` is kept as sent, date or not; `aws-chunked` says how the request came, not what the
    object is.
    """
    codings = [one.strip() for one in (encoding or "").split(",")]
    codings = [one for one in codings if one and one != "aws-chunked"]
    asked = {
        "ContentType": content_type or DEFAULT_TYPE,
        "CacheControl": cache_control,
        "ContentDisposition": disposition,
        "ContentEncoding": ",".join(codings) or None,
        "ContentLanguage": language,
        "Expires": call.http.headers.get("expires"),
        "WebsiteRedirectLocation": redirect,
    }
    return {name: value for name, value in asked.items() if value is not None}


def tags_of_header(header: str | None) -> dict[str, str]:
    """Return the tags of `x-amz-tagging`: a query string."""
    if not header:
        return {}
    try:
        pairs = parse_qsl(header, keep_blank_values=True, strict_parsing=True, errors="strict")
    except (ValueError, UnicodeDecodeError):
        pairs = []
    if not pairs or len({key for key, _ in pairs}) < len(pairs):
        text = (
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
            "parameters without tag name duplicates."
        )
        raise invalid_argument(text, "x-amz-tagging", header)
    return checked_tags(pairs)


def tags_of_set(tags: Sequence[Tag], kind: str = "Object", most: int = TAGS) -> dict[str, str]:
    """Return the tags of a TagSet."""
    pairs = [(tag["Key"], tag["Value"]) for tag in tags]
    if len({key for key, _ in pairs}) < len(pairs):
        raise AwsError("InvalidTag", "Cannot provide multiple Tags with the same key", 400)
    return checked_tags(pairs, kind, most)


def checked_tags(
    pairs: Sequence[tuple[str, str]], kind: str = "Object", most: int = TAGS
) -> dict[str, str]:
    """Return tags; AwsError BadRequest for too many, InvalidTag for one that can't be."""
    if len(pairs) > most:
        raise AwsError("BadRequest", f"{kind} tags cannot be greater than {most}", 400)
    for key, value in pairs:
        if not 1 <= len(key) <= TAG_KEY or not TAG.fullmatch(key):
            raise invalid_tag("The TagKey you have provided is invalid", key)
        if key.lower().startswith("aws:"):
            raise invalid_tag("System tags cannot be added/updated by requester", key)
        if len(value) > TAG_VALUE or not TAG.fullmatch(value):
            raise invalid_tag("The TagValue you have provided is invalid", key)
    return dict(pairs)


def invalid_tag(text: str, key: str) -> AwsError:
    """Return the error for a tag that can't be."""
    return AwsError("InvalidTag", text, 400, fields={"TagKey": key})


def copy_source(text: str) -> tuple[str, str]:
    """Return bucket and key of `x-amz-copy-source`: `[/]bucket/key[?versionId=…]`, URL-encoded."""
    path, _, version = text.partition("?versionId=")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    if not bucket or not key:
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise invalid_argument(message, "x-amz-copy-source", text)
    check_version(version or None)
    return bucket, key
