"""Buckets, and what may be asked of one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, Result, operation
from cloche.permissions import Permission, key
from cloche.records import objects as rows
from cloche.services.s3.errors import access_denied, invalid_argument, no_such_bucket
from cloche.services.s3.ownership import KIND, OWNERSHIPS, check_bucket_acl
from cloche.services.s3.permissions import ACL, CALLER, GRANTS, LIST, SETS_BUCKET_ACL, on_bucket
from cloche.services.s3.requests import bucket_of, owner_of
from cloche.services.s3.storage import S3

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
FIRST_REGION = "us-east-1"  # which has rules of its own
ALL_BUCKETS = 10_000
OWNERSHIP = "x-amz-object-ownership"
LOCKS = "ObjectLockEnabledForBucket"
CREATE = (
    on_bucket(
        "s3:CreateBucket",
        ACL,
        *GRANTS,
        key("s3:locationconstraint", "CreateBucketConfiguration.LocationConstraint"),
        key("s3:x-amz-object-ownership", "ObjectOwnership"),
    ),
    *SETS_BUCKET_ACL,
    on_bucket("s3:PutBucketOwnershipControls", when="ObjectOwnership"),
    on_bucket("s3:PutBucketObjectLockConfiguration", when=LOCKS),
    on_bucket("s3:PutBucketVersioning", when=LOCKS),
)


@operation(permissions=[Permission("s3:ListAllMyBuckets", keys=(CALLER,))], on=executors.S3_READ)
def list_buckets(
    call: Call[S3],
    *,
    MaxBuckets: int | None = None,
    ContinuationToken: str | None = None,
    Prefix: str | None = None,
    BucketRegion: str | None = None,
) -> Result:
    """Return the account's buckets in order of name."""
    if MaxBuckets is not None and not 1 <= MaxBuckets <= ALL_BUCKETS:
        text = f"Argument max-buckets must be an integer between 1 and {ALL_BUCKETS}"
        raise invalid_argument(text, "max-buckets", MaxBuckets)
    limit, after = MaxBuckets or ALL_BUCKETS, ContinuationToken or ""
    found: list[rows.BucketRow] = []
    while len(found) <= limit:
        page = rows.buckets(call.store.read(), call.account, after, limit + 1)
        found += [
            bucket
            for bucket in page
            if bucket.name.startswith(Prefix or "") and BucketRegion in (None, bucket.region)
        ]
        if len(page) <= limit:
            break
        after = page[-1].name
    result: dict[str, object] = {
        "Buckets": [
            {
                "Name": bucket.name,
                "CreationDate": from_ms(bucket.created),
                "BucketRegion": bucket.region,
            }
            for bucket in found[:limit]
        ],
        "Owner": owner_of(call.account),
    }
    if Prefix is not None:
        result["Prefix"] = Prefix
    if len(found) > limit:
        result["ContinuationToken"] = found[limit - 1].name
    return result


@operation(permissions=CREATE)
async def create_bucket(
    call: Call[S3],
    *,
    Bucket: str,
    ACL: str | None = None,
    GrantFullControl: str | None = None,
    GrantRead: str | None = None,
    GrantReadACP: str | None = None,
    GrantWrite: str | None = None,
    GrantWriteACP: str | None = None,
    CreateBucketConfiguration: Mapping[str, Any] | None = None,
    ObjectLockEnabledForBucket: bool | None = None,
    ObjectOwnership: str | None = None,
) -> Result:
    """Make a bucket; a second time is an error, save in us-east-1 for one's own."""
    check_name(Bucket)
    if call.principal.kind == "anonymous":
        raise access_denied()
    grants = (GrantFullControl, GrantRead, GrantReadACP, GrantWrite, GrantWriteACP)
    check_bucket_acl(ACL, grants, ObjectOwnership)
    if ObjectLockEnabledForBucket:
        raise unsupported("Object Lock (ObjectLockEnabledForBucket)")
    if ObjectOwnership not in (None, *OWNERSHIPS):
        raise invalid_argument("Invalid x-amz-object-ownership header", OWNERSHIP, ObjectOwnership)
    region = region_of(call.region, CreateBucketConfiguration or {})
    settings = {KIND: json.dumps(ObjectOwnership)} if ObjectOwnership else {}
    made, is_new = await call.service.create_bucket(
        Bucket, call.account, region, call.now, settings
    )
    if not is_new:
        if made.account != call.account:
            raise AwsError(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by "
                "all users of the system. Please select a different name and try again.",
                409,
                fields={"BucketName": Bucket},
            )
        if region != FIRST_REGION or made.region != FIRST_REGION:
            raise AwsError(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own "
                "it.",
                409,
                fields={"BucketName": Bucket},
            )
    return {"Location": f"/{Bucket}"}


def check_name(name: str) -> None:
    """Raise InvalidBucketName for a name that no bucket may have."""
    good = (
        NAME.fullmatch(name)
        and ".." not in name
        and not ADDRESS.fullmatch(name)
        and not name.startswith(PREFIXES)
        and not name.endswith(SUFFIXES)
    )
    if not good:
        text = "The specified bucket is not valid."
        raise AwsError("InvalidBucketName", text, 400, fields={"BucketName": name})


def region_of(endpoint: str, configuration: Mapping[str, Any]) -> str:
    """Return the region that a new bucket lies in; AwsError when that can't be from here."""
    for name in configuration.keys() - {"LocationConstraint"}:
        raise unsupported(f"CreateBucketConfiguration.{name}")
    wanted: str | None = configuration.get("LocationConstraint")
    if wanted == FIRST_REGION:
        text = "The specified location-constraint is not valid"
        fields = {"LocationConstraint": wanted}
        raise AwsError("InvalidLocationConstraint", text, 400, fields=fields)
    if endpoint == FIRST_REGION or wanted == endpoint:
        return wanted or endpoint
    text = (
        f"The {wanted or 'unspecified'} location constraint is incompatible for the region "
        "specific endpoint this request was sent to."
    )
    raise AwsError("IllegalLocationConstraintException", text, 400)


@operation(permissions=[LIST])
def head_bucket(call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None) -> Result:
    """Say where a bucket lies; 404 and 403 as other operations, without a text."""
    return {"BucketRegion": bucket_of(call, Bucket, ExpectedBucketOwner).region}


@operation(permissions=[on_bucket("s3:DeleteBucket")])
async def delete_bucket(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Remove an empty bucket; uploads under way in it are aborted."""
    bucket_of(call, Bucket, ExpectedBucketOwner)

    def change(connection: Connection) -> list[str]:
        if rows.find_bucket(connection, Bucket) is None:
            raise no_such_bucket(Bucket)
        if rows.objects(connection, Bucket, "", None, 1, True):
            text = "The bucket you tried to delete is not empty"
            raise AwsError("BucketNotEmpty", text, 409, fields={"BucketName": Bucket})
        gone: list[str] = []
        while uploads := rows.uploads(connection, Bucket, "", None, 1000, True):
            for upload in uploads:
                gone += rows.delete_upload(connection, upload)
        rows.delete_bucket(connection, Bucket)
        return gone

    call.service.remove(await call.service.configure(Bucket, change))


@operation(permissions=[on_bucket("s3:GetBucketLocation")])
def get_bucket_location(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return the region, which for us-east-1 is nothing."""
    region = bucket_of(call, Bucket, ExpectedBucketOwner).region
    return {} if region == FIRST_REGION else {"LocationConstraint": region}


@operation(permissions=[on_bucket("s3:GetBucketAcl")])
def get_bucket_acl(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return what holds for every bucket: the owner may do anything, nobody else."""
    return access_list(bucket_of(call, Bucket, ExpectedBucketOwner).account)


def access_list(account: str) -> dict[str, object]:
    """Return the access control list of something that an account owns."""
    owner = owner_of(account)
    grantee = {"Type": "CanonicalUser", **owner}
    return {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}
