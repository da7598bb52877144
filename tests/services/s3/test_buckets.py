"""Buckets on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.handlers import validate_bucket_name
from s3_server import ACCOUNT, Served
from wire import refused


def test_bucket_is_listed_located_and_deleted(s3: Any) -> None:
    assert s3.create_bucket(Bucket="alpha-1")["Location"] == "/alpha-1"
    listed = s3.list_buckets()
    found = {one["Name"]: one for one in listed["Buckets"]}
    assert found["alpha-1"]["BucketRegion"] == "us-east-1"
    assert len(listed["Owner"]["ID"]) == 64
    assert s3.head_bucket(Bucket="alpha-1")["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket="alpha-1")["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket="alpha-1")
    s3.delete_bucket(Bucket="alpha-1")
    refused("404", None, 404, lambda: s3.head_bucket(Bucket="alpha-1"))
    text = "The specified bucket does not exist"
    answer = refused("NoSuchBucket", text, 404, lambda: s3.delete_bucket(Bucket="alpha-1"))
    assert answer["Error"]["BucketName"] == "alpha-1"


def test_list_buckets_in_pages(s3: Any) -> None:
    for name in ("page-a", "page-b", "page-c", "other-d"):
        s3.create_bucket(Bucket=name)
    first = s3.list_buckets(Prefix="page-", MaxBuckets=2)
    assert [one["Name"] for one in first["Buckets"]] == ["page-a", "page-b"]
    second = s3.list_buckets(
        Prefix="page-", MaxBuckets=2, ContinuationToken=first["ContinuationToken"]
    )
    assert [one["Name"] for one in second["Buckets"]] == ["page-c"]
    assert "ContinuationToken" not in second


@pytest.mark.parametrize(
    "name", ["Upper-case", "a..b", "192.168.1.1", "-dash", "dash-", "xn--x", "a_b", "x" * 64]
)
def test_bucket_names_that_can_not_be(served: Served, name: str) -> None:
    client = served.client()
    # botocore would refuse some of them itself.
    client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    text = "The specified bucket is not valid."
    refused("InvalidBucketName", text, 400, lambda: client.create_bucket(Bucket=name))


def test_second_creation(s3: Any, served: Served, stranger: Any) -> None:
    s3.create_bucket(Bucket="twice-1")
    s3.create_bucket(Bucket="twice-1")  # us-east-1 says yes, as ever
    text = (
        "The requested bucket name is not available. The bucket namespace is shared by all users "
        "of the system. Please select a different name and try again."
    )
    refused("BucketAlreadyExists", text, 409, lambda: stranger.create_bucket(Bucket="twice-1"))
    west = _region(served, "eu-west-1")
    there = {"LocationConstraint": "eu-west-1"}
    west.create_bucket(Bucket="west-1", CreateBucketConfiguration=there)
    assert west.get_bucket_location(Bucket="west-1")["LocationConstraint"] == "eu-west-1"
    refused(
        "BucketAlreadyOwnedByYou",
        "Your previous request to create the named bucket succeeded and you already own it.",
        409,
        lambda: west.create_bucket(Bucket="west-1", CreateBucketConfiguration=there),
    )


def _region(served: Served, region: str) -> Any:
    return served.client(region=region)


def test_location_constraint(s3: Any, served: Served) -> None:
    west = _region(served, "eu-west-1")
    refused(
        "IllegalLocationConstraintException",
        "The unspecified location constraint is incompatible for the region specific endpoint "
        "this request was sent to.",
        400,
        lambda: west.create_bucket(Bucket="nowhere-1"),
    )
    refused(
        "IllegalLocationConstraintException",
        "The eu-west-2 location constraint is incompatible for the region specific endpoint this "
        "request was sent to.",
        400,
        lambda: west.create_bucket(
            Bucket="nowhere-1", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"}
        ),
    )
    refused(
        "InvalidLocationConstraint",
        "The specified location-constraint is not valid",
        400,
        lambda: s3.create_bucket(
            Bucket="nowhere-1", CreateBucketConfiguration={"LocationConstraint": "us-east-1"}
        ),
    )


def test_bucket_that_is_not_empty(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    text = "The bucket you tried to delete is not empty"
    refused("BucketNotEmpty", text, 409, lambda: s3.delete_bucket(Bucket=bucket))


def test_deleting_a_bucket_aborts_its_uploads(s3: Any, served: Served, bucket: str) -> None:
    before = served.blobs()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.delete_bucket(Bucket=bucket)
    assert served.blobs() == before


def test_expected_bucket_owner(s3: Any, bucket: str) -> None:
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=ACCOUNT)
    refused("403", None, 403, lambda: s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="0" * 12))
    refused(
        "AccessDenied",
        "Access Denied",
        403,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", ExpectedBucketOwner="0" * 12),
    )


def test_another_account_sees_nothing(s3: Any, stranger: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    for call in (
        lambda: stranger.get_object(Bucket=bucket, Key="k"),
        lambda: stranger.list_objects_v2(Bucket=bucket),
        lambda: stranger.delete_object(Bucket=bucket, Key="k"),
        lambda: stranger.delete_bucket(Bucket=bucket),
    ):
        refused("AccessDenied", "Access Denied", 403, call)
    assert bucket not in [one["Name"] for one in stranger.list_buckets()["Buckets"]]


def test_configurations_that_are_not_there(s3: Any, bucket: str) -> None:
    for code, text, ask in (
        ("NoSuchBucketPolicy", "The bucket policy does not exist", s3.get_bucket_policy),
        ("NoSuchTagSet", "The TagSet does not exist", s3.get_bucket_tagging),
        ("NoSuchCORSConfiguration", "The CORS configuration does not exist", s3.get_bucket_cors),
        (
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist",
            s3.get_bucket_lifecycle_configuration,
        ),
    ):
        refused(code, text, 404, lambda ask=ask: ask(Bucket=bucket))
    acl = s3.get_bucket_acl(Bucket=bucket)
    assert [grant["Permission"] for grant in acl["Grants"]] == ["FULL_CONTROL"]
    assert acl["Grants"][0]["Grantee"]["ID"] == acl["Owner"]["ID"]


def test_what_is_not_supported_is_refused_by_name(s3: Any, bucket: str) -> None:
    for name, call in (
        (
            "PutBucketVersioning",
            lambda: s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            ),
        ),
        (
            "ObjectLockMode",
            lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", ObjectLockMode="GOVERNANCE"),
        ),
        (
            "GLACIER",
            lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", StorageClass="GLACIER"),
        ),
        (
            "Object Lock",
            lambda: s3.create_bucket(Bucket="locked-1", ObjectLockEnabledForBucket=True),
        ),
    ):
        answer = refused("NotImplemented", None, 501, call)
        assert name in answer["Error"]["Message"]
