"""Who else may use a bucket: policies, the public, other accounts; through boto3 and plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from s3_server import ACCOUNT, OTHER, Served
from wire import body, refused

ROOT, STRANGER = f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{OTHER}:root"
OFF = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False
)
DENIED = ("AccessDenied", "Access Denied", 403)


def allow(bucket: str, *actions: str, who: Any = "*", **more: Any) -> str:
    """Return a policy with one statement, on the bucket and its objects."""
    arn = f"arn:aws:s3:::{bucket}"
    statement = {"Effect": "Allow", "Principal": who, "Action": actions, **more}
    resources = [arn] if all("Object" not in each for each in actions) else [f"{arn}/*"]
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Resource": resources, **statement}]}
    )


def blocked(s3: Any, bucket: str, **settings: bool) -> None:
    """Set a bucket's public access block: off, save for these."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**OFF, **settings})


@pytest.fixture(scope="module")
def nobody(served: Served) -> Any:
    """Return a client that signs nothing."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{served.port}",
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, proxies={}),
    )


@pytest.fixture
def open_bucket(s3: Any, bucket: str) -> Iterator[str]:
    """Yield a bucket with an object, and nothing blocked."""
    blocked(s3, bucket)
    s3.put_object(Bucket=bucket, Key="a", Body=b"text")
    yield bucket


# ---------------------------------------------------------------------- the policy


def test_a_policy_is_kept_as_sent_and_goes(s3: Any, bucket: str) -> None:
    none = ("NoSuchBucketPolicy", "The bucket policy does not exist", 404)
    refused(*none, lambda: s3.get_bucket_policy(Bucket=bucket))
    refused(*none, lambda: s3.get_bucket_policy_status(Bucket=bucket))
    s3.delete_bucket_policy(Bucket=bucket)
    policy = allow(bucket, "s3:GetObject", who={"AWS": OTHER}) + "\n "
    answer = s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    kept = s3.get_bucket_policy(Bucket=bucket)
    assert kept["Policy"] == policy
    assert kept["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/json"
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": False}
    s3.delete_bucket_policy(Bucket=bucket)
    refused(*none, lambda: s3.get_bucket_policy(Bucket=bucket))


def test_a_policy_that_can_not_be_changes_nothing(s3: Any, bucket: str) -> None:
    policy = allow(bucket, "s3:GetObject", who={"AWS": OTHER})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    wrong = allow("another", "s3:GetObject", who={"AWS": OTHER})
    text = "Policy has invalid resource"
    answer = refused(
        "MalformedPolicy", text, 400, lambda: s3.put_bucket_policy(Bucket=bucket, Policy=wrong)
    )
    assert answer["Error"]["Detail"] == "arn:aws:s3:::another/*"
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    missing = ("NoSuchBucket", "The specified bucket does not exist", 404)
    refused(*missing, lambda: s3.put_bucket_policy(Bucket="is-not-there", Policy=wrong))


def test_a_policy_goes_with_its_bucket(s3: Any, nobody: Any, open_bucket: str) -> None:
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject"))
    assert body(nobody.get_object(Bucket=open_bucket, Key="a")) == b"text"
    s3.delete_object(Bucket=open_bucket, Key="a")
    s3.delete_bucket(Bucket=open_bucket)
    s3.create_bucket(Bucket=open_bucket)
    s3.put_object(Bucket=open_bucket, Key="a", Body=b"new")
    refused(*DENIED, lambda: nobody.get_object(Bucket=open_bucket, Key="a"))
    refused("NoSuchBucketPolicy", None, 404, lambda: s3.get_bucket_policy(Bucket=open_bucket))


def test_a_deny_holds_against_the_owner_until_root_takes_it_away(s3: Any, open_bucket: str) -> None:
    """Root may always get, put and delete the policy, lest nobody can."""
    arn = f"arn:aws:s3:::{open_bucket}"
    everything = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
    }
    assert body(s3.get_object(Bucket=open_bucket, Key="a")) == b"text"
    s3.put_bucket_policy(Bucket=open_bucket, Policy=json.dumps({"Statement": everything}))
    text = (
        f'User: {ROOT} is not authorized to perform: s3:GetObject on resource: "{arn}/a" with an '
        "explicit deny in a resource-based policy"
    )
    refused("AccessDenied", text, 403, lambda: s3.get_object(Bucket=open_bucket, Key="a"))
    refused("AccessDenied", None, 403, lambda: s3.get_public_access_block(Bucket=open_bucket))
    assert "Deny" in s3.get_bucket_policy(Bucket=open_bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=open_bucket)
    assert body(s3.get_object(Bucket=open_bucket, Key="a")) == b"text"


# ---------------------------------------------------------------------- other accounts


def test_another_account_may_what_the_policy_allows(
    s3: Any, stranger: Any, open_bucket: str
) -> None:
    get = {"Bucket": open_bucket, "Key": "a"}
    refused(*DENIED, lambda: stranger.get_object(**get))
    who = {"AWS": STRANGER}
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject", who=who))
    assert body(stranger.get_object(**get)) == b"text"
    assert stranger.head_object(**get)["ContentLength"] == 4
    for call in (
        lambda: stranger.put_object(**get, Body=b"theirs"),
        lambda: stranger.delete_object(**get),
        lambda: stranger.list_objects_v2(Bucket=open_bucket),
        lambda: stranger.copy_object(**get, CopySource=f"{open_bucket}/a"),
        lambda: stranger.delete_bucket(Bucket=open_bucket),
    ):
        refused(*DENIED, call)
    s3.put_bucket_policy(
        Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject", who={"AWS": ROOT})
    )
    refused(*DENIED, lambda: stranger.get_object(**get))


def test_what_another_account_writes_belongs_to_the_buckets_owner(
    s3: Any, stranger: Any, open_bucket: str
) -> None:
    policy = allow(open_bucket, "s3:PutObject", "s3:AbortMultipartUpload", who={"AWS": OTHER})
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    stranger.put_object(Bucket=open_bucket, Key="b", Body=b"theirs")
    stranger.upload_part(
        Bucket=open_bucket,
        Key="c",
        PartNumber=1,
        Body=b"x",
        UploadId=stranger.create_multipart_upload(Bucket=open_bucket, Key="c")["UploadId"],
    )
    assert body(s3.get_object(Bucket=open_bucket, Key="b")) == b"theirs"
    (upload,) = s3.list_multipart_uploads(Bucket=open_bucket)["Uploads"]
    assert upload["Owner"] == s3.get_bucket_acl(Bucket=open_bucket)["Owner"]
    assert upload["Initiator"]["ID"] == STRANGER


def test_a_copy_asks_both_buckets(s3: Any, stranger: Any, open_bucket: str) -> None:
    mine = f"{open_bucket}-copies"
    stranger.create_bucket(Bucket=mine)

    def copy() -> Any:
        return stranger.copy_object(Bucket=mine, Key="b", CopySource=f"{open_bucket}/a")

    refused(*DENIED, copy)
    s3.put_bucket_policy(
        Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject", who={"AWS": OTHER})
    )
    copy()
    assert body(stranger.get_object(Bucket=mine, Key="b")) == b"text"
    refused(*DENIED, lambda: s3.get_object(Bucket=mine, Key="b"))


def test_the_policy_itself_is_its_accounts_alone(s3: Any, stranger: Any, open_bucket: str) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketPolicy.html"""
    refused(*DENIED, lambda: stranger.get_bucket_policy(Bucket=open_bucket))
    policy = allow(open_bucket, "s3:*BucketPolicy", who={"AWS": OTHER})
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    text = "The specified method is not allowed against this resource."
    for call in (
        lambda: stranger.get_bucket_policy(Bucket=open_bucket),
        lambda: stranger.delete_bucket_policy(Bucket=open_bucket),
        lambda: stranger.put_bucket_policy(Bucket=open_bucket, Policy=policy),
    ):
        refused("MethodNotAllowed", text, 405, call)


def test_the_owner_is_whom_the_caller_takes_for_it(
    s3: Any, stranger: Any, open_bucket: str
) -> None:
    s3.put_bucket_policy(
        Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject", who={"AWS": OTHER})
    )
    get = {"Bucket": open_bucket, "Key": "a"}
    assert body(stranger.get_object(**get, ExpectedBucketOwner=ACCOUNT)) == b"text"
    refused(*DENIED, lambda: stranger.get_object(**get, ExpectedBucketOwner=OTHER))


# ---------------------------------------------------------------------- nobody


def test_nobody_may_what_a_public_policy_allows(
    s3: Any, nobody: Any, served: Served, open_bucket: str
) -> None:
    url = f"http://127.0.0.1:{served.port}/{open_bucket}/a"
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code><Message>Access Denied</Message>" in answer.text
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject"))
    answer = requests.get(url, headers={"Range": "bytes=1-2"}, timeout=30)
    assert (answer.status_code, answer.content) == (206, b"ex")
    assert s3.get_bucket_policy_status(Bucket=open_bucket)["PolicyStatus"] == {"IsPublic": True}
    assert nobody.head_object(Bucket=open_bucket, Key="a")["ContentLength"] == 4
    for call in (
        lambda: nobody.list_objects_v2(Bucket=open_bucket),
        lambda: nobody.put_object(Bucket=open_bucket, Key="b", Body=b""),
        lambda: nobody.delete_object(Bucket=open_bucket, Key="a"),
        lambda: nobody.get_bucket_policy(Bucket=open_bucket),
        lambda: nobody.create_bucket(Bucket=open_bucket),
        lambda: nobody.list_buckets(),
    ):
        refused(*DENIED, call)


def test_a_missing_key_is_told_to_who_may_list(s3: Any, nobody: Any, open_bucket: str) -> None:
    def get() -> Any:
        return nobody.get_object(Bucket=open_bucket, Key="missing")

    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject"))
    refused(*DENIED, get)
    refused("403", None, 403, lambda: nobody.head_object(Bucket=open_bucket, Key="missing"))
    arn = f"arn:aws:s3:::{open_bucket}"
    both = allow(open_bucket, "s3:GetObject", "s3:ListBucket", Resource=[arn, f"{arn}/*"])
    s3.put_bucket_policy(Bucket=open_bucket, Policy=both)
    refused("NoSuchKey", "The specified key does not exist.", 404, get)
    refused("404", None, 404, lambda: nobody.head_object(Bucket=open_bucket, Key="missing"))


def test_nobody_writes_where_everybody_may(s3: Any, nobody: Any, open_bucket: str) -> None:
    policy = allow(open_bucket, "s3:*Object")
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    nobody.put_object(Bucket=open_bucket, Key="b", Body=b"of nobody")
    assert body(s3.get_object(Bucket=open_bucket, Key="b")) == b"of nobody"
    text = "Anonymous users cannot {}.  Please authenticate."
    refused(
        "AccessDenied",
        text.format("copy objects"),
        403,
        lambda: nobody.copy_object(Bucket=open_bucket, Key="c", CopySource=f"{open_bucket}/a"),
    )
    refused(
        "AccessDenied",
        text.format("initiate multipart uploads"),
        403,
        lambda: nobody.create_multipart_upload(Bucket=open_bucket, Key="c"),
    )
    nobody.delete_object(Bucket=open_bucket, Key="b")
    refused("NoSuchKey", None, 404, lambda: s3.get_object(Bucket=open_bucket, Key="b"))


def test_nobodys_upload_in_pieces(s3: Any, served: Served, open_bucket: str) -> None:
    url = f"http://127.0.0.1:{served.port}/{open_bucket}/pieces"
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:PutObject"))

    def put(kind: str) -> requests.Response:
        headers = {"x-amz-content-sha256": kind, "x-amz-decoded-content-length": "4"}
        headers["content-encoding"] = "aws-chunked"
        return requests.put(url, data=b"4\r\ntext\r\n0\r\n\r\n", headers=headers, timeout=30)

    assert put("STREAMING-UNSIGNED-PAYLOAD-TRAILER").status_code == 200
    assert body(s3.get_object(Bucket=open_bucket, Key="pieces")) == b"text"
    for kind in ("", "-TRAILER"):
        assert put(f"STREAMING-AWS4-HMAC-SHA256-PAYLOAD{kind}").status_code == 403


def test_a_form_that_nobody_signed(s3: Any, served: Served, open_bucket: str) -> None:
    url = f"http://127.0.0.1:{served.port}/{open_bucket}"

    def post(**fields: str) -> int:
        form = {"key": (None, "form"), **{name: (None, value) for name, value in fields.items()}}
        return requests.post(url, files={**form, "file": b"text"}, timeout=30).status_code

    assert post() == 403
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:PutObject"))
    assert post() == 204
    assert body(s3.get_object(Bucket=open_bucket, Key="form")) == b"text"
    assert post(AWSAccessKeyId="AKIAEXAMPLE000000001", Signature="x") == 403


def test_a_wrong_signature_is_not_nobodys(s3: Any, served: Served, open_bucket: str) -> None:
    s3.put_bucket_policy(Bucket=open_bucket, Policy=allow(open_bucket, "s3:GetObject"))
    url = s3.generate_presigned_url("get_object", Params={"Bucket": open_bucket, "Key": "a"})
    assert requests.get(url, timeout=30).content == b"text"
    assert requests.get(url.partition("?")[0], timeout=30).content == b"text"
    assert requests.get(url.replace("Signature=", "Signature=0"), timeout=30).status_code == 403


def test_a_presigned_url_is_its_signers(
    s3: Any, stranger: Any, served: Served, open_bucket: str
) -> None:
    params = {"Bucket": open_bucket, "Key": "a"}
    url = stranger.generate_presigned_url("get_object", Params=params)
    assert requests.get(url, timeout=30).status_code == 403
    policy = allow(open_bucket, "s3:GetObject", who={"AWS": OTHER})
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    assert requests.get(url, timeout=30).content == b"text"


# ---------------------------------------------------------------------- conditions


def test_conditions_of_a_request(s3: Any, stranger: Any, served: Served, open_bucket: str) -> None:
    def get(**headers: str) -> int:
        url = f"http://127.0.0.1:{served.port}/{open_bucket}/a"
        return requests.get(url, headers=headers, timeout=30).status_code

    def only(**condition: Any) -> None:
        policy = allow(open_bucket, "s3:GetObject", Condition=condition)
        s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)

    only(StringLike={"aws:Referer": "https://example.com/*"})
    assert get(referer="https://example.com/a") == 200 and get() == 403
    only(StringEquals={"aws:UserAgent": "me"})
    assert get(**{"user-agent": "me"}) == 200 and get(**{"user-agent": "you"}) == 403
    only(Bool={"aws:SecureTransport": "true"})
    assert get() == 403
    only(Bool={"aws:SecureTransport": "false"})
    assert get() == 200
    only(StringEquals={"aws:PrincipalType": "Anonymous", "aws:PrincipalAccount": "anonymous"})
    assert get() == 200
    refused(*DENIED, lambda: stranger.get_object(Bucket=open_bucket, Key="a"))
    only(StringEquals={"s3:authType": "REST-QUERY-STRING"})
    params = {"Bucket": open_bucket, "Key": "a"}
    assert requests.get(stranger.generate_presigned_url("get_object", Params=params), timeout=30).ok
    assert get() == 403
    refused(*DENIED, lambda: stranger.get_object(Bucket=open_bucket, Key="a"))
    only(StringEquals={"s3:ExistingObjectTag/open": "yes"})
    assert get() == 403
    tags = {"TagSet": [{"Key": "open", "Value": "yes"}]}
    s3.put_object_tagging(Bucket=open_bucket, Key="a", Tagging=tags)
    assert get() == 200


def test_conditions_of_lists_and_uploads(s3: Any, stranger: Any, open_bucket: str) -> None:
    who = {"AWS": OTHER}
    prefix = {"StringLike": {"s3:prefix": "home/*"}}
    policy = allow(open_bucket, "s3:ListBucket", who=who, Condition=prefix)
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    assert stranger.list_objects_v2(Bucket=open_bucket, Prefix="home/")["KeyCount"] == 0
    refused(*DENIED, lambda: stranger.list_objects_v2(Bucket=open_bucket, Prefix="a"))
    refused(*DENIED, lambda: stranger.list_objects_v2(Bucket=open_bucket))
    sealed = {"StringEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}
    policy = allow(open_bucket, "s3:PutObject", who=who, Condition=sealed)
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    put = {"Bucket": open_bucket, "Key": "k", "Body": b""}
    stranger.put_object(**put, ServerSideEncryption="aws:kms")
    refused(*DENIED, lambda: stranger.put_object(**put))
    granted = {"StringLike": {"s3:x-amz-grant-full-control": "id=*"}}
    policy = allow(open_bucket, "s3:PutObject", "s3:PutObjectAcl", who=who, Condition=granted)
    s3.put_bucket_policy(Bucket=open_bucket, Policy=policy)
    owner = s3.get_bucket_acl(Bucket=open_bucket)["Owner"]["ID"]
    stranger.put_object(**put, GrantFullControl=f"id={owner}")
    refused(*DENIED, lambda: stranger.put_object(**put))


# ---------------------------------------------------------------------- public access


def test_a_new_bucket_blocks_all_public_access(s3: Any, bucket: str) -> None:
    def settings() -> Any:
        return s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]

    assert settings() == dict.fromkeys(OFF, True)
    one = {"PublicAccessBlockConfiguration": {"BlockPublicPolicy": True}}
    s3.put_public_access_block(Bucket=bucket, **one)
    assert settings() == {**OFF, "BlockPublicPolicy": True}
    s3.delete_public_access_block(Bucket=bucket)
    refused(
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found",
        404,
        settings,
    )
    none = {"PublicAccessBlockConfiguration": {}}
    text = "Must specify at least one configuration."
    refused("InvalidRequest", text, 400, lambda: s3.put_public_access_block(Bucket=bucket, **none))


def test_a_public_policy_is_blocked(s3: Any, bucket: str) -> None:
    policy = allow(bucket, "s3:GetObject")
    text = (
        f"User: {ROOT} is not authorized to perform: s3:PutBucketPolicy on resource: "
        f'"arn:aws:s3:::{bucket}" because public policies are blocked by the BlockPublicPolicy '
        "block public access setting."
    )
    put = lambda: s3.put_bucket_policy(Bucket=bucket, Policy=policy)  # noqa: E731
    refused("AccessDenied", text, 403, put)
    refused("NoSuchBucketPolicy", None, 404, lambda: s3.get_bucket_policy(Bucket=bucket))
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:GetObject", who={"AWS": OTHER}))
    blocked(s3, bucket, BlockPublicAcls=True, IgnorePublicAcls=True, RestrictPublicBuckets=True)
    put()
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    s3.delete_public_access_block(Bucket=bucket)
    put()


def test_a_restricted_bucket_lets_its_account_in_alone(
    s3: Any, stranger: Any, nobody: Any, open_bucket: str
) -> None:
    """As in the documentation's example: one public statement closes the bucket for all others."""
    get = {"Bucket": open_bucket, "Key": "a"}
    mine = allow(open_bucket, "s3:GetObject", who={"AWS": OTHER})
    s3.put_bucket_policy(Bucket=open_bucket, Policy=mine)
    blocked(s3, open_bucket, RestrictPublicBuckets=True)
    assert body(stranger.get_object(**get)) == b"text"  # it is not public
    both = {"Statement": [*json.loads(mine)["Statement"]]}
    both["Statement"] += json.loads(allow(open_bucket, "s3:GetObject"))["Statement"]
    s3.put_bucket_policy(Bucket=open_bucket, Policy=json.dumps(both))
    refused(*DENIED, lambda: stranger.get_object(**get))
    refused(*DENIED, lambda: nobody.get_object(**get))
    assert body(s3.get_object(**get)) == b"text"
    blocked(s3, open_bucket)
    assert body(stranger.get_object(**get)) == body(nobody.get_object(**get)) == b"text"
    s3.delete_public_access_block(Bucket=open_bucket)
    assert body(nobody.get_object(**get)) == b"text"


# ---------------------------------------------------------------------- ownership, ACLs


def controls(s3: Any, bucket: str, ownership: str) -> None:
    rules = {"Rules": [{"ObjectOwnership": ownership}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)


def test_who_owns_the_objects_of_a_bucket(s3: Any, bucket: str) -> None:
    def found() -> str:
        answer = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
        (rule,) = answer["Rules"]
        said: str = rule["ObjectOwnership"]
        return said

    assert found() == "BucketOwnerEnforced"
    for one in ("BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced"):
        controls(s3, bucket, one)
        assert found() == one
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    text = "The bucket ownership controls were not found"
    refused("OwnershipControlsNotFoundError", text, 404, found)
    refused("MalformedXML", None, 400, lambda: controls(s3, bucket, "Nobody"))
    s3.create_bucket(Bucket=f"{bucket}-2", ObjectOwnership="ObjectWriter")
    found_there = s3.get_bucket_ownership_controls(Bucket=f"{bucket}-2")
    assert found_there["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "ObjectWriter"}]


def test_acls_are_off(s3: Any, bucket: str) -> None:
    put = {"Bucket": bucket, "Key": "a", "Body": b"x"}
    s3.put_object(**put, ACL="bucket-owner-full-control")
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    s3.put_object(**put, GrantFullControl=f'id="{owner}"')
    off = ("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)
    upload = {"Bucket": bucket, "Key": "b"}
    everybody = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
    for call in (
        lambda: s3.put_object(**put, ACL="public-read"),
        lambda: s3.put_object(**put, ACL="authenticated-read"),
        lambda: s3.put_object(**put, GrantRead=everybody),
        lambda: s3.put_object(**put, GrantFullControl=f"id={owner}", GrantRead=everybody),
        lambda: s3.create_multipart_upload(**upload, ACL="public-read"),
        lambda: s3.copy_object(**upload, CopySource=f"{bucket}/a", ACL="public-read"),
        lambda: s3.put_bucket_acl(Bucket=bucket, ACL="private"),
        lambda: s3.put_bucket_acl(Bucket=bucket, GrantRead=everybody),
        lambda: s3.put_object_acl(Bucket=bucket, Key="a", ACL="public-read"),
    ):
        refused(*off, call)
    refused("NoSuchKey", None, 404, lambda: s3.get_object(**upload))


def test_a_new_bucket_with_an_acl(s3: Any, bucket: str) -> None:
    name = f"{bucket}-acl"
    refused(
        "InvalidBucketAclWithObjectOwnership",
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        400,
        lambda: s3.create_bucket(Bucket=name, ACL="public-read"),
    )
    refused(
        "InvalidBucketAclWithBlockPublicAccessError",
        "Bucket cannot have public ACLs set with BlockPublicAccess enabled",
        400,
        lambda: s3.create_bucket(Bucket=name, ACL="public-read", ObjectOwnership="ObjectWriter"),
    )
    s3.create_bucket(Bucket=name, ACL="private")


def test_acls_of_a_bucket_that_has_them(s3: Any, stranger: Any, bucket: str) -> None:
    controls(s3, bucket, "BucketOwnerPreferred")
    put = {"Bucket": bucket, "Key": "a", "Body": b"x"}
    s3.put_object(**put, ACL="private")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_object_acl(Bucket=bucket, Key="a", ACL="bucket-owner-full-control")
    said = s3.get_object_acl(Bucket=bucket, Key="a")
    same = {"Owner": said["Owner"], "Grants": said["Grants"]}
    s3.put_object_acl(Bucket=bucket, Key="a", AccessControlPolicy=same)
    arn = f"arn:aws:s3:::{bucket}"
    for call, action, resource in (
        (lambda: s3.put_object(**put, ACL="public-read"), "s3:PutObject", f"{arn}/a"),
        (lambda: s3.put_bucket_acl(Bucket=bucket, ACL="public-read"), "s3:PutBucketAcl", arn),
    ):
        text = (
            f'User: {ROOT} is not authorized to perform: {action} on resource: "{resource}" '
            "because public access control lists (ACLs) are blocked by the BlockPublicAcls block "
            "public access setting."
        )
        refused("AccessDenied", text, 403, call)
    text = "Specifying both Canned ACLs and Header Grants is not allowed"
    both = {"ACL": "private", "GrantRead": "id=a"}
    refused("InvalidRequest", text, 400, lambda: s3.put_object(**put, **both))
    blocked(s3, bucket)
    refused("NotImplemented", None, 501, lambda: s3.put_object(**put, ACL="public-read"))
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=allow(bucket, "s3:PutObject", "s3:PutObjectAcl", who={"AWS": OTHER}),
    )
    stranger.put_object(**put, ACL="bucket-owner-full-control")
    refused("NotImplemented", None, 501, lambda: stranger.put_object(**put))


def test_a_policy_that_demands_encryption_lets_uploads_in_parts_be(
    s3: Any, open_bucket: str
) -> None:
    """Only the request that begins one says how it is to be encrypted."""
    unsealed = {"Null": {"s3:x-amz-server-side-encryption": "true"}}
    deny = allow(open_bucket, "s3:PutObject", Effect="Deny", Condition=unsealed)
    s3.put_bucket_policy(Bucket=open_bucket, Policy=deny)
    place = {"Bucket": open_bucket, "Key": "u"}
    refused("AccessDenied", None, 403, lambda: s3.create_multipart_upload(**place))
    refused("AccessDenied", None, 403, lambda: s3.put_object(**place, Body=b""))
    upload = s3.create_multipart_upload(**place, ServerSideEncryption="AES256")["UploadId"]
    of = {**place, "UploadId": upload}
    part = s3.upload_part(**of, PartNumber=1, Body=b"whole")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**of, MultipartUpload=parts)
    assert body(s3.get_object(**place)) == b"whole"
