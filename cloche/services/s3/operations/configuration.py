"""What is configured for a bucket: tags, encryption, and for most else what a new bucket has.

Who may use it, see `access`. Nothing else can be set: what would set it is not supported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from cloche.core.errors import AwsError
from cloche.operation import Call, Reply, Result, operation
from cloche.records import objects as rows
from cloche.services.s3.encryption import ENCRYPTION, checked_rule, rule_of
from cloche.services.s3.errors import no_such_bucket
from cloche.services.s3.permissions import on_bucket
from cloche.services.s3.requests import Tag, bucket_of, tags_of_set
from cloche.services.s3.storage import S3

TAGS = "tags"  # the kind of setting
MOST_TAGS = 50


def default(call: Call[S3], bucket: str, owner: str | None, result: Mapping[str, object]) -> Result:
    """Return what a new bucket has; AwsError where the bucket is not there, or not the caller's."""
    bucket_of(call, bucket, owner)
    return result


def absent(call: Call[S3], bucket: str, owner: str | None, code: str, text: str) -> Result:
    """Raise what S3 answers for a bucket without a configuration of some kind."""
    bucket_of(call, bucket, owner)
    raise AwsError(code, text, 404, fields={"BucketName": bucket})


# ------------------------------------------------------------------ tags


@operation(permissions=[on_bucket("s3:GetBucketTagging")])
def get_bucket_tagging(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return a bucket's tags, by key; AwsError NoSuchTagSet when it has none."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    document = rows.bucket_setting(call.store.read(), Bucket, TAGS)
    if document is None:
        text = "The TagSet does not exist"
        return absent(call, Bucket, ExpectedBucketOwner, "NoSuchTagSet", text)
    tags: dict[str, str] = json.loads(document)
    return {"TagSet": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


@operation(permissions=[on_bucket("s3:PutBucketTagging")])
async def put_bucket_tagging(
    call: Call[S3],
    *,
    Bucket: str,
    Tagging: Mapping[str, Sequence[Tag]],
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Set a bucket's tags, in place of those it has."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    tags = tags_of_set(Tagging.get("TagSet", ()), "Bucket", MOST_TAGS)
    await set_one(call, Bucket, TAGS, json.dumps(tags))
    return Reply({}, 204)


@operation(permissions=[on_bucket("s3:PutBucketTagging")])
async def delete_bucket_tagging(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Remove a bucket's tags."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    await set_one(call, Bucket, TAGS, None)


async def set_one(call: Call[S3], bucket: str, kind: str, document: str | None) -> None:
    """Write a setting of a bucket; AwsError NoSuchBucket when it was deleted meanwhile."""

    def change(connection: Connection) -> None:
        if rows.find_bucket(connection, bucket) is None:
            raise no_such_bucket(bucket)
        rows.set_bucket_setting(connection, bucket, kind, document)

    await call.service.configure(bucket, change)


# ------------------------------------------------------------------ what every bucket has


@operation(permissions=[on_bucket("s3:GetBucketVersioning")])
def get_bucket_versioning(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return nothing: versioning was never enabled, nor can it be."""
    return default(call, Bucket, ExpectedBucketOwner, {})


@operation(permissions=[on_bucket("s3:GetEncryptionConfiguration")])
def get_bucket_encryption(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return how new objects are encrypted that do not ask for something else."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    rule = rule_of(call.store.read(), Bucket)
    return {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}


@operation(permissions=[on_bucket("s3:PutEncryptionConfiguration")])
async def put_bucket_encryption(
    call: Call[S3],
    *,
    Bucket: str,
    ServerSideEncryptionConfiguration: Mapping[str, Any],
    ContentMD5: str | None = None,
    ChecksumAlgorithm: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> None:
    """Set how new objects are said to be encrypted that do not ask for something else."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    rule = checked_rule(ServerSideEncryptionConfiguration)
    await set_one(call, Bucket, ENCRYPTION, json.dumps(rule))


@operation(permissions=[on_bucket("s3:PutEncryptionConfiguration")])
async def delete_bucket_encryption(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> None:
    """Go back to what a new bucket has."""
    bucket_of(call, Bucket, ExpectedBucketOwner)
    await set_one(call, Bucket, ENCRYPTION, None)


@operation(permissions=[on_bucket("s3:GetBucketNotification")])
def get_bucket_notification_configuration(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return that nobody is notified."""
    return default(call, Bucket, ExpectedBucketOwner, {})


@operation(permissions=[on_bucket("s3:GetBucketLogging")])
def get_bucket_logging(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return that no access log is kept."""
    return default(call, Bucket, ExpectedBucketOwner, {})


@operation(permissions=[on_bucket("s3:GetBucketRequestPayment")])
def get_bucket_request_payment(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return that the owner pays."""
    return default(call, Bucket, ExpectedBucketOwner, {"Payer": "BucketOwner"})


@operation(permissions=[on_bucket("s3:GetAccelerateConfiguration")])
def get_bucket_accelerate_configuration(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Return nothing: acceleration was never configured."""
    return default(call, Bucket, ExpectedBucketOwner, {})


@operation(permissions=[on_bucket("s3:GetBucketCORS")])
def get_bucket_cors(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Raise that there are no rules."""
    text = "The CORS configuration does not exist"
    return absent(call, Bucket, ExpectedBucketOwner, "NoSuchCORSConfiguration", text)


@operation(permissions=[on_bucket("s3:GetLifecycleConfiguration")])
def get_bucket_lifecycle_configuration(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Raise that there are no rules."""
    text = "The lifecycle configuration does not exist"
    return absent(call, Bucket, ExpectedBucketOwner, "NoSuchLifecycleConfiguration", text)


@operation(permissions=[on_bucket("s3:GetBucketWebsite")])
def get_bucket_website(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Raise that there is no website."""
    text = "The specified bucket does not have a website configuration"
    return absent(call, Bucket, ExpectedBucketOwner, "NoSuchWebsiteConfiguration", text)


@operation(permissions=[on_bucket("s3:GetReplicationConfiguration")])
def get_bucket_replication(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Raise that nothing is replicated."""
    text = "The replication configuration was not found"
    return absent(call, Bucket, ExpectedBucketOwner, "ReplicationConfigurationNotFoundError", text)


@operation(permissions=[on_bucket("s3:GetBucketObjectLockConfiguration")])
def get_object_lock_configuration(
    call: Call[S3], *, Bucket: str, ExpectedBucketOwner: str | None = None
) -> Result:
    """Raise that objects can't be locked."""
    text = "Object Lock configuration does not exist for this bucket"
    return absent(call, Bucket, ExpectedBucketOwner, "ObjectLockConfigurationNotFoundError", text)


@operation(permissions=[on_bucket("s3:GetAnalyticsConfiguration")])
def list_bucket_analytics_configurations(
    call: Call[S3],
    *,
    Bucket: str,
    ContinuationToken: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return none: none can be made."""
    return default(call, Bucket, ExpectedBucketOwner, {"IsTruncated": False})


@operation(permissions=[on_bucket("s3:GetInventoryConfiguration")])
def list_bucket_inventory_configurations(
    call: Call[S3],
    *,
    Bucket: str,
    ContinuationToken: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return none: none can be made."""
    return default(call, Bucket, ExpectedBucketOwner, {"IsTruncated": False})


@operation(permissions=[on_bucket("s3:GetMetricsConfiguration")])
def list_bucket_metrics_configurations(
    call: Call[S3],
    *,
    Bucket: str,
    ContinuationToken: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return none: none can be made."""
    return default(call, Bucket, ExpectedBucketOwner, {"IsTruncated": False})


@operation(permissions=[on_bucket("s3:GetIntelligentTieringConfiguration")])
def list_bucket_intelligent_tiering_configurations(
    call: Call[S3],
    *,
    Bucket: str,
    ContinuationToken: str | None = None,
    ExpectedBucketOwner: str | None = None,
) -> Result:
    """Return none: none can be made."""
    return default(call, Bucket, ExpectedBucketOwner, {"IsTruncated": False})
