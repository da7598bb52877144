"""Objects on the wire: put, get, head, copy, delete, conditions, tags."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from s3_server import Served
from wire import body, refused

from cloche.services.s3.checksums import WIDTHS, valid

PRECONDITION = "At least one of the pre-conditions you specified did not hold"
LONG_AGO, LATER = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


def test_what_is_put_is_got(s3: Any, bucket: str) -> None:
    put = s3.put_object(
        Bucket=bucket,
        Key="a/b c+ü&?.txt",
        Body=b"hello",
        ContentType="text/plain",
        CacheControl="no-cache",
        ContentDisposition='attachment; filename="x"',
        ContentEncoding="gzip",
        ContentLanguage="de",
        Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        Metadata={"Colour": "red"},
        StorageClass="STANDARD_IA",
        ServerSideEncryption="aws:kms",
        Tagging="a=1&b=2%203",
    )
    assert put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert put["ServerSideEncryption"] == "aws:kms"
    got = s3.get_object(Bucket=bucket, Key="a/b c+ü&?.txt")
    assert body(got) == b"hello"
    head = s3.head_object(Bucket=bucket, Key="a/b c+ü&?.txt")
    for answer in (got, head):
        assert answer["ContentLength"] == 5
        assert answer["ContentType"] == "text/plain"
        assert answer["CacheControl"] == "no-cache"
        assert answer["ContentDisposition"] == 'attachment; filename="x"'
        assert answer["ContentEncoding"] == "gzip"
        assert answer["ContentLanguage"] == "de"
        assert answer["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"
        assert answer["Metadata"] == {"colour": "red"}
        assert answer["StorageClass"] == "STANDARD_IA"
        assert answer["ServerSideEncryption"] == "aws:kms"
        assert answer["TagCount"] == 2
        assert answer["AcceptRanges"] == "bytes"


def test_plain_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert body(got) == b""
    assert got["ContentType"] == "binary/octet-stream"
    assert "StorageClass" not in got
    assert got["ServerSideEncryption"] == "AES256"  # what S3 does with each new object since 2023
    assert abs((got["LastModified"] - datetime.now(UTC)).total_seconds()) < 60


def test_large_object_is_whole(s3: Any, bucket: str, served: Served) -> None:
    data = os.urandom((7 << 20) + 13)
    before = served.blobs()
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == data
    (blob,) = served.blobs() - before
    assert blob.read_bytes() == data
    assert blob.stat().st_mode & 0o777 == 0o444


def test_replacing_and_deleting_leave_no_blob(s3: Any, bucket: str, served: Served) -> None:
    before = served.blobs()
    for _ in range(3):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert len(served.blobs() - before) == 1
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_object(Bucket=bucket, Key="k")  # one that is not there is no error
    assert served.blobs() == before
    refused(
        "NoSuchKey",
        "The specified key does not exist.",
        404,
        lambda: s3.get_object(Bucket=bucket, Key="k"),
    )
    refused("404", None, 404, lambda: s3.head_object(Bucket=bucket, Key="k"))


@pytest.mark.parametrize(
    ("asked", "content", "shown"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-100", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", b"0123456789", "bytes 0-9/10"),
        ("bytes=5-2", b"0123456789", None),  # ignored, as what can't be read
        ("bytes=0-1,4-5", b"0123456789", None),
        ("lines=1-2", b"0123456789", None),
        ("bytes=\xb2-\xb3", b"0123456789", None),
        (f"bytes=2-{'9' * 5000}", b"23456789", "bytes 2-9/10"),
        (f"bytes=-{'9' * 5000}", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_ranges(s3: Any, bucket: str, asked: str, content: bytes, shown: str | None) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
    assert body(got) == content
    assert got.get("ContentRange") == shown
    assert got["ResponseMetadata"]["HTTPStatusCode"] == (206 if shown else 200)
    assert got["ContentLength"] == len(content)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_ranges_behind_the_end(s3: Any, bucket: str, asked: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = refused(
        "InvalidRange",
        "The requested range is not satisfiable",
        416,
        lambda: s3.get_object(Bucket=bucket, Key="k", Range=asked),
    )
    assert answer["Error"]["RangeRequested"] == asked
    assert answer["Error"]["ActualObjectSize"] == "10"


def test_response_headers_on_demand(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="a/b")
    got = s3.get_object(
        Bucket=bucket,
        Key="k",
        ResponseContentType="c/d",
        ResponseCacheControl="no-store",
        ResponseContentDisposition="inline",
        ResponseExpires=datetime(2031, 1, 1, tzinfo=UTC),
    )
    assert got["ContentType"] == "c/d"
    assert got["CacheControl"] == "no-store"
    assert got["ContentDisposition"] == "inline"
    assert got["ExpiresString"] == "Wed, 01 Jan 2031 00:00:00 GMT"


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]

    def get(**conditions: Any) -> Any:
        return s3.get_object(Bucket=bucket, Key="k", **conditions)

    for holds in (
        {"IfMatch": etag},
        {"IfMatch": "*"},
        {"IfNoneMatch": '"other"'},
        {"IfModifiedSince": LONG_AGO},
        {"IfUnmodifiedSince": LATER},
        {"IfMatch": etag, "IfUnmodifiedSince": LONG_AGO},  # If-Match outranks
        {"IfNoneMatch": '"other"', "IfModifiedSince": LATER},
    ):
        assert body(get(**holds)) == b"x"
    for fails, condition in (
        ({"IfMatch": '"other"'}, "If-Match"),
        ({"IfUnmodifiedSince": LONG_AGO}, "If-Unmodified-Since"),
    ):
        answer = refused("PreconditionFailed", PRECONDITION, 412, lambda f=fails: get(**f))
        assert answer["Error"]["Condition"] == condition
    for same in ({"IfNoneMatch": etag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": LATER}):
        answer = refused("304", None, 304, lambda s=same: get(**s))
        assert answer["ResponseMetadata"]["HTTPHeaders"]["etag"] == etag


def test_conditional_writes(s3: Any, bucket: str, served: Served) -> None:
    def put(**conditions: Any) -> Any:
        return s3.put_object(Bucket=bucket, Key="k", Body=b"x", **conditions)

    text = "The specified key does not exist."
    refused("NoSuchKey", text, 404, lambda: put(IfMatch="*"))
    etag = put(IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", PRECONDITION, 412, lambda: put(IfNoneMatch="*"))
    refused("PreconditionFailed", PRECONDITION, 412, lambda: put(IfMatch='"other"'))
    put(IfMatch=etag)
    refused(
        "NotImplemented",
        "A header you provided implies functionality that is not implemented",
        501,
        lambda: put(IfNoneMatch=etag),
    )
    refused(
        "PreconditionFailed",
        PRECONDITION,
        412,
        lambda: s3.delete_object(Bucket=bucket, Key="k", IfMatch='"other"'),
    )
    before = served.blobs()
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert len(before - served.blobs()) == 1


def test_copies(s3: Any, bucket: str, served: Served) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="from here",
        Body=b"hello",
        Metadata={"a": "b"},
        ContentType="text/plain",
        Tagging="x=y",
    )
    before = served.blobs()
    copied = s3.copy_object(
        Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from here"}
    )
    assert copied["CopyObjectResult"]["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    (blob,) = served.blobs() - before
    assert blob.stat().st_nlink == 2  # no byte was copied
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (body(got), got["Metadata"], got["ContentType"]) == (b"hello", {"a": "b"}, "text/plain")
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == [{"Key": "x", "Value": "y"}]
    s3.delete_object(Bucket=bucket, Key="from here")
    assert body(s3.get_object(Bucket=bucket, Key="to")) == b"hello"
    s3.copy_object(
        Bucket=bucket,
        Key="to",
        CopySource=f"{bucket}/to",
        MetadataDirective="REPLACE",
        Metadata={"c": "d"},
        TaggingDirective="REPLACE",
        Tagging="",
        ChecksumAlgorithm="SHA256",
    )
    got = s3.get_object(Bucket=bucket, Key="to", ChecksumMode="ENABLED")
    assert (body(got), got["Metadata"]) == (b"hello", {"c": "d"})
    assert got["ChecksumSHA256"] == "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    assert "TagCount" not in got


def test_copies_that_fail(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    refused(
        "InvalidRequest",
        "This copy request is illegal because it is trying to copy an object to itself without "
        "changing the object's metadata, storage class, website redirect location or encryption "
        "attributes.",
        400,
        lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k"),
    )
    refused(
        "NoSuchKey",
        "The specified key does not exist.",
        404,
        lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/none"),
    )
    refused(
        "NoSuchBucket",
        "The specified bucket does not exist",
        404,
        lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource="no-such-bucket/k"),
    )
    for conditions in (
        {"CopySourceIfMatch": '"other"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfModifiedSince": LATER},
        {"CopySourceIfUnmodifiedSince": LONG_AGO},
    ):
        refused(
            "PreconditionFailed",
            PRECONDITION,
            412,
            lambda c=conditions: s3.copy_object(
                Bucket=bucket, Key="to", CopySource=f"{bucket}/k", **c
            ),
        )


def test_delete_objects(s3: Any, bucket: str) -> None:
    for key in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    asked = [{"Key": "a"}, {"Key": "none"}, {"Key": "b", "ETag": '"other"'}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": asked})
    assert answer["Deleted"] == [{"Key": "a"}, {"Key": "none"}]
    assert answer["Errors"] == [{"Key": "b", "Code": "PreconditionFailed", "Message": PRECONDITION}]
    quiet = {"Objects": [{"Key": "b"}], "Quiet": True}
    answer = s3.delete_objects(Bucket=bucket, Delete=quiet)
    assert "Deleted" not in answer
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["c"]
    refused(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
        400,
        lambda: s3.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": str(n)} for n in range(1001)]}
        ),
    )


@pytest.mark.parametrize("condition", [{"Size": 7}, {"LastModifiedTime": datetime(2026, 1, 1)}])
def test_what_a_condition_spares_is_not_deleted(
    s3: Any, bucket: str, condition: dict[str, Any]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    refused(
        "NotImplemented",
        f"Cloche does not support Delete.Objects.{next(iter(condition))}. ETag is.",
        501,
        lambda: s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", **condition}]}),
    )
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"x"


def test_a_digest_that_is_no_ascii_is_invalid(s3: Any, bucket: str) -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers["Content-MD5"] = "\xff\xfe"

    s3.meta.events.register("before-sign.s3.PutObject", add)
    try:
        refused(
            "InvalidDigest",
            "The Content-MD5 you specified was invalid.",
            400,
            lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x"),
        )
    finally:
        s3.meta.events.unregister("before-sign.s3.PutObject", add)
    assert not any(valid(name, "\xff\xfe") for name in WIDTHS)


def test_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tags = [{"Key": "b", "Value": "2"}, {"Key": "a", "Value": ""}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags[::-1]
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []

    def put(*pairs: tuple[str, str]) -> Any:
        tags = [{"Key": key, "Value": value} for key, value in pairs]
        return s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})

    text = "Object tags cannot be greater than 10"
    refused("BadRequest", text, 400, lambda: put(*[(str(n), "") for n in range(11)]))
    text = "Cannot provide multiple Tags with the same key"
    refused("InvalidTag", text, 400, lambda: put(("a", ""), ("a", "")))
    text = "The TagKey you have provided is invalid"
    refused("InvalidTag", text, 400, lambda: put(("a!", "")))
    refused("InvalidTag", text, 400, lambda: put(("a" * 129, "")))
    text = "The TagValue you have provided is invalid"
    refused("InvalidTag", text, 400, lambda: put(("a", "v" * 257)))
    text = "System tags cannot be added/updated by requester"
    refused("InvalidTag", text, 400, lambda: put(("aws:a", "")))
    text = (
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
        "parameters without tag name duplicates."
    )
    refused(
        "InvalidArgument",
        text,
        400,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1&a=2"),
    )


def test_limits_of_keys_and_metadata(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="ü" * 512, Body=b"x", Metadata={"k": "v" * 2047})
    answer = refused(
        "KeyTooLongError",
        "Your key is too long",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="ü" * 512 + "x", Body=b"x"),
    )
    assert answer["Error"]["Size"] == "1025"
    refused(
        "MetadataTooLarge",
        "Your metadata headers exceed the maximum allowed metadata size",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"k": "v" * 2048}),
    )
    refused(
        "InvalidArgument",
        "The encryption method specified is not supported",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="rot13"),
    )


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls(served: Served, s3: Any, bucket: str, version: str) -> None:
    client = served.client(signature_version=version)
    put = client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "a b"})
    request = urllib.request.Request(put, data=b"from outside", method="PUT")
    request.add_header("Content-Type", "")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    get = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b"})
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b"from outside"
    for operation in ("list_objects_v2", "list_multipart_uploads"):
        url = client.generate_presigned_url(operation, {"Bucket": bucket})
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(get.replace("Signature=", "Signature=A"))
    assert caught.value.code == 403


def test_object_acl_and_versions(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="private")
    acl = s3.get_object_acl(Bucket=bucket, Key="k")
    assert [grant["Permission"] for grant in acl["Grants"]] == ["FULL_CONTROL"]
    assert body(s3.get_object(Bucket=bucket, Key="k", VersionId="null")) == b"x"
    refused(
        "InvalidArgument",
        "Invalid version id specified",
        400,
        lambda: s3.get_object(Bucket=bucket, Key="k", VersionId="v1"),
    )
