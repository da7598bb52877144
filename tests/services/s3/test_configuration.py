"""What a bucket is configured to do: its tags, and what a new bucket has on AWS."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from wire import refused


def test_tags_of_a_bucket(s3: Any, stranger: Any, bucket: str) -> None:
    text = "The TagSet does not exist"
    refused("NoSuchTagSet", text, 404, lambda: s3.get_bucket_tagging(Bucket=bucket))
    for tags in ([("b", "2"), ("a", "1")], [("c", "")]):
        said = [{"Key": key, "Value": value} for key, value in tags]
        answer = s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": said})
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        found = s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
        assert found == sorted(said, key=lambda tag: tag["Key"])
    refused(
        "AccessDenied", "Access Denied", 403, lambda: stranger.delete_bucket_tagging(Bucket=bucket)
    )
    s3.delete_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_tagging(Bucket=bucket)
    refused("NoSuchTagSet", text, 404, lambda: s3.get_bucket_tagging(Bucket=bucket))


def test_tags_go_with_their_bucket(s3: Any, bucket: str) -> None:
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    refused("NoSuchTagSet", None, 404, lambda: s3.get_bucket_tagging(Bucket=bucket))


def test_tags_that_a_bucket_can_not_have(s3: Any, bucket: str) -> None:
    def put(*keys: str) -> Any:
        tags = [{"Key": key, "Value": ""} for key in keys]
        return s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})

    put(*(f"k{n}" for n in range(50)))
    text = "Bucket tags cannot be greater than 50"
    refused("BadRequest", text, 400, lambda: put(*(f"k{n}" for n in range(51))))
    text = "Cannot provide multiple Tags with the same key"
    refused("InvalidTag", text, 400, lambda: put("a", "a"))
    text = "System tags cannot be added/updated by requester"
    refused("InvalidTag", text, 400, lambda: put("aws:x"))


KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_a_buckets_encryption_is_said_of_its_new_objects(s3: Any, bucket: str) -> None:
    def put(**default: str) -> None:
        rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})

    def said(answer: dict[str, Any]) -> tuple[Any, ...]:
        names = ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
        return tuple(answer.get(name) for name in names)

    put(SSEAlgorithm="aws:kms", KMSMasterKeyID=KEY)
    found = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    assert found == {
        "Rules": [
            {
                "ApplyServerSideEncryptionByDefault": {
                    "SSEAlgorithm": "aws:kms",
                    "KMSMasterKeyID": KEY,
                },
                "BucketKeyEnabled": True,
            }
        ]
    }
    sealed = ("aws:kms", KEY, True)
    assert said(s3.put_object(Bucket=bucket, Key="k", Body=b"")) == sealed
    assert said(s3.head_object(Bucket=bucket, Key="k")) == sealed
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
    assert said(copied) == said(s3.get_object(Bucket=bucket, Key="c")) == sealed
    upload = s3.create_multipart_upload(Bucket=bucket, Key="u")
    part = {"Bucket": bucket, "Key": "u", "UploadId": upload["UploadId"]}
    one = s3.upload_part(**part, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": one["ETag"]}]}
    whole = s3.complete_multipart_upload(**part, MultipartUpload=parts)
    assert said(upload) == said(one) == said(whole) == sealed
    # What a request asks for goes first.
    own = s3.put_object(Bucket=bucket, Key="own", Body=b"", ServerSideEncryption="AES256")
    assert said(own) == ("AES256", None, None)
    s3.delete_bucket_encryption(Bucket=bucket)
    assert said(s3.put_object(Bucket=bucket, Key="n", Body=b"")) == ("AES256", None, None)
    assert said(s3.head_object(Bucket=bucket, Key="k")) == sealed
    with pytest.raises(ClientError, match="MalformedXML"):
        put(SSEAlgorithm="rot13")
    with pytest.raises(ClientError, match="a KMSMasterKeyID is not applicable if the default"):
        put(SSEAlgorithm="AES256", KMSMasterKeyID=KEY)


def test_what_a_new_bucket_has(s3: Any, bucket: str) -> None:
    def ask(name: str) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(s3, name)(Bucket=bucket)
        return {k: v for k, v in answer.items() if k != "ResponseMetadata"}

    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
        "BucketKeyEnabled": False,
    }
    encryption = ask("get_bucket_encryption")["ServerSideEncryptionConfiguration"]
    assert encryption == {"Rules": [rule]}
    assert ask("get_public_access_block")["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    }
    controls = ask("get_bucket_ownership_controls")["OwnershipControls"]
    assert controls == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert ask("get_bucket_request_payment") == {"Payer": "BucketOwner"}
    for name in (
        "get_bucket_versioning",
        "get_bucket_notification_configuration",
        "get_bucket_logging",
        "get_bucket_accelerate_configuration",
    ):
        assert ask(name) == {}, name
    for kind in ("analytics", "inventory", "metrics", "intelligent_tiering"):
        assert ask(f"list_bucket_{kind}_configurations") == {"IsTruncated": False}, kind


@pytest.mark.parametrize(
    ("operation", "code", "text"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy", "The bucket policy does not exist"),
        ("get_bucket_policy_status", "NoSuchBucketPolicy", "The bucket policy does not exist"),
        (
            "get_bucket_website",
            "NoSuchWebsiteConfiguration",
            "The specified bucket does not have a website configuration",
        ),
        (
            "get_bucket_replication",
            "ReplicationConfigurationNotFoundError",
            "The replication configuration was not found",
        ),
        (
            "get_object_lock_configuration",
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        ),
    ],
)
def test_what_a_new_bucket_has_not(
    s3: Any, bucket: str, operation: str, code: str, text: str
) -> None:
    answer = refused(code, text, 404, lambda: getattr(s3, operation)(Bucket=bucket))
    assert answer["Error"]["BucketName"] == bucket


@pytest.mark.parametrize(
    "operation",
    [
        "get_bucket_encryption",
        "get_public_access_block",
        "get_bucket_website",
        "get_bucket_logging",
    ],
)
def test_configurations_of_buckets_that_are_not_ones_own(
    s3: Any, stranger: Any, bucket: str, operation: str
) -> None:
    text = "The specified bucket does not exist"
    refused("NoSuchBucket", text, 404, lambda: getattr(s3, operation)(Bucket="is-not-there"))
    refused(
        "AccessDenied", "Access Denied", 403, lambda: getattr(stranger, operation)(Bucket=bucket)
    )


def test_versions_of_objects_that_have_none(s3: Any, bucket: str) -> None:
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)
    for key in ("a", "b/1", "b/2", "c d"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    listed = s3.list_object_versions(Bucket=bucket)
    assert [one["Key"] for one in listed["Versions"]] == ["a", "b/1", "b/2", "c d"]
    assert "DeleteMarkers" not in listed and listed["IsTruncated"] is False
    for one in listed["Versions"]:
        assert (one["VersionId"], one["IsLatest"], one["Size"]) == ("null", True, 1)
        assert one["ETag"] == '"9dd4e461268c8034f5c8564e155c67a6"'
    grouped = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    assert [one["Key"] for one in grouped["Versions"]] == ["a", "c d"]
    assert grouped["CommonPrefixes"] == [{"Prefix": "b/"}]


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_versions_in_pages(s3: Any, bucket: str, delimiter: str) -> None:
    keys = [f"{folder}/{n}" for folder in "ab" for n in range(4)] + ["x", "y", "z"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    found: list[str] = []
    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Delimiter=delimiter, PaginationConfig={"PageSize": 2}
    )
    for page in pages:
        names = [one["Key"] for one in page.get("Versions", ())]
        names += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        assert len(names) <= 2
        found += names
    assert sorted(found) == (["a/", "b/", "x", "y", "z"] if delimiter else keys)


def test_version_marker_without_a_key(s3: Any, bucket: str) -> None:
    text = "A version-id marker cannot be specified without a key marker."
    refused(
        "InvalidArgument",
        text,
        400,
        lambda: s3.list_object_versions(Bucket=bucket, VersionIdMarker="null"),
    )


def test_a_bucket_is_emptied_as_test_suites_do_it(s3: Any, bucket: str) -> None:
    for n in range(3):
        s3.put_object(Bucket=bucket, Key=f"k{n}", Body=b"")
    versions = s3.list_object_versions(Bucket=bucket)["Versions"]
    objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
    assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    s3.delete_bucket(Bucket=bucket)


def test_an_empty_acl_is_none(s3: Any, bucket: str) -> None:
    """s3fs sends one with each upload (its issue 749)."""
    s3.create_bucket(Bucket=f"{bucket}-acl", ACL="")
    s3.put_object(Bucket=bucket, Key="a", Body=b"x", ACL="")
    source = {"Bucket": bucket, "Key": "a"}
    s3.copy_object(Bucket=bucket, Key="b", CopySource=source, ACL="")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="c", ACL="")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="c", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="c", UploadId=upload, MultipartUpload=parts)
    for key in "abc":
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
        grants = s3.get_object_acl(Bucket=bucket, Key=key)["Grants"]
        assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]
    refused(
        "AccessControlListNotSupported",
        "The bucket does not allow ACLs",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="d", Body=b"x", ACL="public-read"),
    )
