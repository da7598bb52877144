"""Who else may use a bucket: its policy, what of it may be public, who owns its objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import ValidationError, convert

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.core.typed import encode
from cloche.operation import Call, Reply, Result, operation
from cloche.records import objects as rows
from cloche.services.s3 import bucket_policies, ownership, public_access
from cloche.services.s3.errors import invalid_request, malformed_xml
from cloche.services.s3.operations.configuration import set_one
from cloche.services.s3.ownership import check_acl_change
from cloche.services.s3.permissions import ACL_KEYS, EXISTING_TAGS, on_bucket, on_version
from cloche.services.s3.policy_document import Policy as Document
from cloche.services.s3.policy_document import read
from cloche.services.s3.public_access import PublicAccessBlock, is_public
from cloche.services.s3.requests import bucket_of, check_version, own_bucket_of
from cloche.services.s3.storage import S3

BLOCKED = (
    'User: {} is not authorized to perform: s3:PutBucketPolicy on resource: "arn:aws:s3:::{}" '
    "because public policies are blocked by the BlockPublicPolicy block public access setting."
)


# ------------------------------------------------------------------ the policy


@operation(permissions=[on_bucket("s3:PutBucketPolicy")])
async def put_bucket_policy(
    call: Call[S3],
    *,
    Bucket: str,
    Policy: str,
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ConfirmRemoveSelfBucketAccess: bool | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Set a bucket's policy, in place of the one that it has: in force when this returns."""
    own_bucket_of(call, Bucket, ExpectedBucketOwner)
    public = await executors.MESSAGES.run(checked, Policy, Bucket)
    block = public_access.configured(call.store.read(), Bucket) or public_access.NONE
    if public and block.block_public_policy:
        raise AwsError("AccessDenied", BLOCKED.format(call.principal.arn, Bucket), 403)
    await set_one(call, Bucket, bucket_policies.KIND, Policy)
    return Reply({}, 204)


def checked(text: str, bucket: str) -> bool:
    """Return whether a policy is public; MalformedPolicy when it is none."""
    return is_public(read(text, bucket))


@operation(permissions=[on_bucket("s3:GetBucketPolicy")])
def get_bucket_policy(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return a bucket's policy as it was sent; AwsError NoSuchBucketPolicy."""
    own_bucket_of(call, Bucket, ExpectedBucketOwner)
    return {"Policy": kept(call, Bucket)}


@operation(permissions=[on_bucket("s3:DeleteBucketPolicy")])
async def delete_bucket_policy(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Remove a bucket's policy."""
    own_bucket_of(call, Bucket, ExpectedBucketOwner)
    await set_one(call, Bucket, bucket_policies.KIND, None)


@operation(permissions=[on_bucket("s3:GetBucketPolicyStatus")])
def get_bucket_policy_status(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Tell whether a bucket's policy is public; AwsError NoSuchBucketPolicy."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    policy: Document = json.loads(kept(call, Bucket))
    return {"PolicyStatus": {"IsPublic": is_public(policy)}}


def kept(call: Call[S3], bucket: str) -> str:
    """Return the policy that a bucket has."""
    found = rows.bucket_setting(call.store.read(), bucket, bucket_policies.KIND)
    if found is None:
        raise absent("NoSuchBucketPolicy", "The bucket policy does not exist", bucket)
    return found


def absent(code: str, text: str, bucket: str) -> AwsError:
    """Return what S3 answers for a bucket without a setting of some kind."""
    return AwsError(code, text, 404, fields={"BucketName": bucket})


# ------------------------------------------------------------------ what may be public


@operation(permissions=[on_bucket("s3:PutBucketPublicAccessBlock")])
async def put_public_access_block(
    call: Call[S3],
    *,
    Bucket: str,
    PublicAccessBlockConfiguration: Mapping[str, bool],
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Set all four settings: one that is not given is off."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    if not PublicAccessBlockConfiguration:
        raise invalid_request("Must specify at least one configuration.")
    try:
        block = convert(PublicAccessBlockConfiguration, PublicAccessBlock)
    except ValidationError as error:
        raise malformed_xml() from error
    await set_one(call, Bucket, public_access.KIND, public_access.dump(block))


@operation(permissions=[on_bucket("s3:GetBucketPublicAccessBlock")])
def get_public_access_block(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return the four settings; AwsError NoSuchPublicAccessBlockConfiguration."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    block = public_access.configured(call.store.read(), Bucket)
    if block is None:
        text = "The public access block configuration was not found"
        raise absent("NoSuchPublicAccessBlockConfiguration", text, Bucket)
    return {"PublicAccessBlockConfiguration": encode(block)}


@operation(permissions=[on_bucket("s3:PutBucketPublicAccessBlock")])
async def delete_public_access_block(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Remove the settings: none is on."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    await set_one(call, Bucket, public_access.KIND, public_access.dump(None))


# ------------------------------------------------------------------ who owns its objects


@operation(permissions=[on_bucket("s3:PutBucketOwnershipControls")])
async def put_bucket_ownership_controls(
    call: Call[S3],
    *,
    Bucket: str,
    OwnershipControls: Mapping[str, Sequence[Mapping[str, str]]],
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Set who owns a bucket's objects, and so whether it has access control lists."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    owner = ownership.checked(OwnershipControls)
    await set_one(call, Bucket, ownership.KIND, json.dumps(owner))


@operation(permissions=[on_bucket("s3:GetBucketOwnershipControls")])
def get_bucket_ownership_controls(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return who owns a bucket's objects; AwsError OwnershipControlsNotFoundError."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    owner = ownership.configured(call.store.read(), Bucket)
    if owner is None:
        text = "The bucket ownership controls were not found"
        raise absent("OwnershipControlsNotFoundError", text, Bucket)
    return {"OwnershipControls": {"Rules": [{"ObjectOwnership": owner}]}}


@operation(permissions=[on_bucket("s3:PutBucketOwnershipControls")])
async def delete_bucket_ownership_controls(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Remove the rule: whoever writes an object owns it."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    await set_one(call, Bucket, ownership.KIND, json.dumps(None))


# ------------------------------------------------------------------ access control lists


@operation(permissions=[on_bucket("s3:PutBucketAcl", *ACL_KEYS)])
def put_bucket_acl(
    call: Call[S3],
    *,
    Bucket: str,
    ACL: str | None = None,
    AccessControlPolicy: Mapping[str, Any] | None = None,
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWrite: str | None = None,
    GrantWriteACP: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Take the one ACL that buckets have, where the bucket has ACLs at all."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWrite, GrantWriteACP)
    said = (ACL, AccessControlPolicy, *grants)
    check_acl_change(call, bucket, "s3:PutBucketAcl", Bucket, *said)


@operation(
    permissions=on_version("s3:PutObjectAcl", "s3:PutObjectVersionAcl", *ACL_KEYS, EXISTING_TAGS)
)
def put_object_acl(
    call: Call[S3],
    *,
    Bucket: str,
    Key: str,
    ACL: str | None = None,
    AccessControlPolicy: Mapping[str, Any] | None = None,
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWrite: str | None = None,
    GrantWriteACP: str | None = None,
    VersionId: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Take the one ACL that objects have, where the bucket has ACLs at all."""
    bucket = bucket_of(call, Bucket, ExpectedBucketOwner)
    check_version(VersionId)
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWrite, GrantWriteACP)
    said = (ACL, AccessControlPolicy, *grants)
    check_acl_change(call, bucket, "s3:PutObjectAcl", f"{Bucket}/{Key}", *said)
    call.service.row(Bucket, Key)
