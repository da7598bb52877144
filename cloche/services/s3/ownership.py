"""Who owns the objects of a bucket, and access control lists, which are off by default.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call
from cloche.records import objects as rows
from cloche.records.objects import BucketRow
from cloche.services.s3 import public_access
from cloche.services.s3.errors import invalid_request, malformed_xml
from cloche.services.s3.requests import owner_of
from cloche.services.s3.storage import S3

KIND = "ownership-controls"  # of setting
ENFORCED = "BucketOwnerEnforced"
OWNERSHIPS = (ENFORCED, "BucketOwnerPreferred", "ObjectWriter")
PRIVATE, TO_BUCKET_OWNER = "private", "bucket-owner-full-control"
PUBLIC = ("public-read", "public-read-write", "authenticated-read")
PUBLIC_GROUPS = ("global/AllUsers", "global/AuthenticatedUsers")
BOTH = "Specifying both Canned ACLs and Header Grants is not allowed"
BLOCKED = (
    'User: {} is not authorized to perform: {} on resource: "{}" because public access control '
    "lists (ACLs) are blocked by the BlockPublicAcls block public access setting."
)


def configured(connection: Connection, bucket: str) -> str | None:
    """Return who owns a bucket's objects; None where that was deleted: who wrote them."""
    kept = rows.bucket_setting(connection, bucket, KIND)
    found: str | None = ENFORCED if kept is None else json.loads(kept)
    return found


def checked(controls: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """Return the one rule of a PutBucketOwnershipControls."""
    rules = controls.get("Rules") or ()
    if len(rules) != 1 or rules[0].get("ObjectOwnership") not in OWNERSHIPS:
        raise malformed_xml()
    return rules[0]["ObjectOwnership"]


# ---------------------------------------------------------------------- of uploads


def check_upload_acl(
    call: Call[S3], bucket: BucketRow, key: str, acl: str | None, *grants: str | None
) -> None:
    """Raise unless the ACL of a new object gives its bucket's owner alone all rights, as all that
    is here has.

    An empty one is none: s3fs sends that with each upload. grants: the headers' values, the one
    for full control first.
    """
    ownership = configured(call.store.read(), bucket.name)
    given = [each for each in grants if each]
    if acl and given:
        raise invalid_request(BOTH)
    own = [f"id={owner_of(bucket.account)['ID']}"]
    to_owner = acl == TO_BUCKET_OWNER or [each.replace('"', "") for each in given] == own
    if ownership == ENFORCED:
        if (acl and acl not in (PRIVATE, TO_BUCKET_OWNER)) or (given and not to_owner):
            raise no_acls()
        return
    check_not_public(call, bucket, "s3:PutObject", f"{bucket.name}/{key}", acl, given)
    if (acl and acl not in (PRIVATE, TO_BUCKET_OWNER)) or (given and not to_owner):
        raise not_here(acl or "of x-amz-grant headers")
    if call.account != bucket.account and not (ownership == OWNERSHIPS[1] and to_owner):
        raise unsupported(
            "objects that belong to another account than their bucket",
            f"Upload with the ACL {TO_BUCKET_OWNER} to a bucket with BucketOwnerPreferred, or "
            f"give the bucket {ENFORCED}.",
        )


def check_not_public(
    call: Call[S3],
    bucket: BucketRow,
    action: str,
    resource: str,
    acl: str | None,
    grants: Sequence[str],
) -> None:
    """Raise AccessDenied for an ACL for everybody, where the bucket blocks such."""
    block = public_access.configured(call.store.read(), bucket.name) or public_access.NONE
    groups = any(group in each for each in grants for group in PUBLIC_GROUPS)
    if block.block_public_acls and (acl in PUBLIC or groups):
        text = BLOCKED.format(call.principal.arn, action, f"arn:aws:s3:::{resource}")
        raise AwsError("AccessDenied", text, 403)


# ---------------------------------------------------------------------- of buckets and objects


def check_acl_change(
    call: Call[S3],
    bucket: BucketRow,
    action: str,
    resource: str,
    acl: str | None,
    policy: Mapping[str, Any] | None,
    *grants: str | None,
) -> None:
    """Raise unless an ACL may be set, and is the one that all has: all rights for the owner."""
    if configured(call.store.read(), bucket.name) == ENFORCED:
        raise no_acls()
    given = [each for each in grants if each]
    if acl and given:
        raise invalid_request(BOTH)
    if (acl or given) and policy:
        raise AwsError("UnexpectedContent", "This request does not support content", 400)
    if not (acl or given or policy):
        fields = {"MissingHeaderName": "x-amz-acl"}
        text = "Your request was missing a required header"
        raise AwsError("MissingSecurityHeader", text, 400, fields=fields)
    said = grants_of(policy)
    check_not_public(call, bucket, action, resource, acl, [*given, *said])
    own = [f"id={owner_of(bucket.account)['ID']}"]
    full = [each.replace('"', "") for each in given] == own
    if acl not in (PRIVATE, TO_BUCKET_OWNER) and not full and said != own:
        raise not_here(acl or "with these grants")


def grants_of(policy: Mapping[str, Any] | None) -> list[str]:
    """Return whom a document gives full control, or something else: then with what that is."""
    found = []
    for grant in (policy or {}).get("Grants", ()):
        grantee = grant.get("Grantee", {})
        who = f"id={grantee['ID']}" if "ID" in grantee else f"uri={grantee.get('URI', '')}"
        right = grant.get("Permission")
        found.append(who if right == "FULL_CONTROL" else f"{who}:{right}")
    return found


def check_bucket_acl(acl: str | None, grants: Sequence[str | None], ownership: str | None) -> None:
    """Raise unless a new bucket may have its ACL."""
    given = [each for each in grants if each]
    if acl in (None, "", PRIVATE) and not given:
        return
    if ownership in (None, ENFORCED):
        text = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        raise AwsError("InvalidBucketAclWithObjectOwnership", text, 400)
    if acl in PUBLIC or any(group in each for each in given for group in PUBLIC_GROUPS):
        text = "Bucket cannot have public ACLs set with BlockPublicAccess enabled"
        raise AwsError("InvalidBucketAclWithBlockPublicAccessError", text, 400)
    raise not_here(acl or "of x-amz-grant headers")


def no_acls() -> AwsError:
    """Return the refusal of an ACL where the bucket's owner owns all objects."""
    return AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)


def not_here(what: str) -> AwsError:
    """Return the refusal of an ACL that would give rights to others."""
    return unsupported(f"the ACL {what}", f"It has {PRIVATE} and {TO_BUCKET_OWNER}.")
