"""What S3's operations ask of IAM.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

from cloche.core.authorization import Values
from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.permissions import ConditionKeys, Parameters, Permission, constant, key
from cloche.records import objects as rows
from cloche.services.s3.document import load

BUCKET, OBJECT = "{Bucket}", "{Bucket}/{Key}"


def owner_keys(call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the account that a bucket belongs to."""
    bucket = rows.find_bucket(call.store.read(), parameters["Bucket"])
    if bucket is None:
        return {}
    return {"aws:resourceaccount": bucket.account, "s3:resourceaccount": bucket.account}


def existing_tag_keys(call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the tags that an object has."""
    row = rows.find_object(call.store.read(), parameters["Bucket"], parameters["Key"])
    tags = load(row.document).tags if row is not None else {}
    return {f"s3:existingobjecttag/{name.lower()}": value for name, value in tags.items()}


def tag_keys(tags: Mapping[str, str]) -> Mapping[str, Values]:
    """Return the tags that an object is to have."""
    if not tags:
        return {}
    asked = {f"s3:requestobjecttag/{name.lower()}": value for name, value in tags.items()}
    return {**asked, "s3:requestobjecttagkeys": tuple(tags)}


def header_tag_keys(_call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the tags of `x-amz-tagging`; the handler refuses one that can't be read."""
    return tag_keys(dict(parse_qsl(parameters.get("Tagging") or "", keep_blank_values=True)))


def document_tag_keys(_call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the tags of PutObjectTagging."""
    return tag_keys({tag["Key"]: tag["Value"] for tag in parameters["Tagging"].get("TagSet", ())})


def encryption_keys(call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return how an object is to be encrypted; of a part, as its upload was begun: a policy that
    demands it holds for all requests of an upload, and only the first says it.
    """
    asked = parameters
    if "UploadId" in parameters:
        place = (parameters["Bucket"], parameters["Key"], parameters["UploadId"])
        upload = rows.find_upload(call.store.read(), *place)
        asked = load(upload.document).encryption if upload is not None else {}
    found = zip(SEALED, ("ServerSideEncryption", "SSEKMSKeyId"), strict=True)
    return {key: asked[name] for key, name in found if asked.get(name)}


def caller_keys(call: Call[Any], _parameters: Parameters, _arn: str) -> Mapping[str, Values]:
    """Return the account that all one's buckets belong to: the caller's."""
    return {"aws:resourceaccount": call.account, "s3:resourceaccount": call.account}


SEALED = (
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
)
TAG_NAMES = ("s3:RequestObjectTag/<key>", "s3:RequestObjectTagKeys")
CALLER = ConditionKeys("s3:ResourceAccount", "aws:ResourceAccount", values=caller_keys)
OWNER = ConditionKeys("s3:ResourceAccount", "aws:ResourceAccount", values=owner_keys)
EXISTING_TAGS = ConditionKeys("s3:ExistingObjectTag/<key>", values=existing_tag_keys)
HEADER_TAGS = ConditionKeys(*TAG_NAMES, values=header_tag_keys)
DOCUMENT_TAGS = ConditionKeys(*TAG_NAMES, values=document_tag_keys)
VERSION, ACL = key("s3:versionid", "VersionId"), key("s3:x-amz-acl", "ACL")
GRANT_NAMES = {
    "GrantFullControl": "s3:x-amz-grant-full-control",
    "GrantRead": "s3:x-amz-grant-read",
    "GrantReadACP": "s3:x-amz-grant-read-acp",
    "GrantWrite": "s3:x-amz-grant-write",
    "GrantWriteACP": "s3:x-amz-grant-write-acp",
}
GRANTS = tuple(key(name, parameter) for parameter, name in GRANT_NAMES.items())
ACL_KEYS = (ACL, *GRANTS)
STORAGE_CLASS = key("s3:x-amz-storage-class", "StorageClass")
ENCRYPTION = ConditionKeys(*SEALED, values=encryption_keys)
IF_MATCH = key("s3:if-match", "IfMatch")
LIST_KEYS = (
    key("s3:prefix", "Prefix"),
    key("s3:delimiter", "Delimiter"),
    key("s3:max-keys", "MaxKeys"),
)
HEADER_KEYS = (
    ACL,
    *GRANTS,
    STORAGE_CLASS,
    ENCRYPTION,
    key("s3:x-amz-website-redirect-location", "WebsiteRedirectLocation"),
    key("s3:x-amz-copy-source", "CopySource"),
    key("s3:x-amz-metadata-directive", "MetadataDirective"),
    IF_MATCH,
    key("s3:if-none-match", "IfNoneMatch"),
    HEADER_TAGS,
)


def on_bucket(action: str, *keys: ConditionKeys, when: str | None = None) -> Permission:
    """Return a permission on the bucket of the request."""
    return Permission(action, BUCKET, keys=(OWNER, *keys), when=when)


def on_object(
    action: str, *keys: ConditionKeys, when: str | None = None, unless: str | None = None
) -> Permission:
    """Return a permission on the object of the request."""
    return Permission(action, OBJECT, keys=(OWNER, *keys), when=when, unless=unless)


def on_version(action: str, version_action: str, *keys: ConditionKeys) -> tuple[Permission, ...]:
    """Return the permission on an object, which is another one where a version is named."""
    return (
        on_object(action, *keys, unless="VersionId"),
        on_object(version_action, VERSION, *keys, when="VersionId"),
    )


def write(creates: bool) -> tuple[Permission, ...]:
    """Return what writing an object asks; `creates`: it is there when the request has ended."""
    creation = constant("s3:ObjectCreationOperation", str(creates).lower())
    return (
        on_object("s3:PutObject", creation, *HEADER_KEYS),
        *(
            on_object("s3:PutObjectAcl", *ACL_KEYS, STORAGE_CLASS, EXISTING_TAGS, when=one)
            for one in ("ACL", *GRANT_NAMES)
        ),
        on_object("s3:PutObjectTagging", HEADER_TAGS, EXISTING_TAGS, when="Tagging"),
    )


SETS_BUCKET_ACL = tuple(
    on_bucket("s3:PutBucketAcl", *ACL_KEYS, when=one) for one in ("ACL", *GRANT_NAMES)
)
LIST = on_bucket("s3:ListBucket", *LIST_KEYS)
READ = on_version("s3:GetObject", "s3:GetObjectVersion", EXISTING_TAGS)
READ_TAGS = on_version("s3:GetObjectTagging", "s3:GetObjectVersionTagging", EXISTING_TAGS)
COPY_TAGS = on_object("s3:PutObjectTagging", EXISTING_TAGS)
DELETE = (
    on_object("s3:DeleteObject", IF_MATCH, unless="VersionId"),
    on_object("s3:DeleteObjectVersion", VERSION, when="VersionId"),
)
DELETE_EACH = (  # of the objects of one DeleteObjects
    on_object("s3:DeleteObject", key("s3:if-match", "ETag"), unless="VersionId"),
    on_object("s3:DeleteObjectVersion", VERSION, when="VersionId"),
)


@contextmanager
def missing_if_listed(call: Call[Any], bucket: str) -> Iterator[None]:
    """Tell that there is no such key only to who may list the bucket, as S3 does."""
    try:
        yield
    except AwsError as error:
        if error.code == "NoSuchKey":
            LIST.authorize(call, {"Bucket": bucket})
        raise
