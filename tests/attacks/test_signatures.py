"""Requests that were changed after they were signed, by who holds a link or saw one pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from by_hand import Answer, Keys, in_header, in_query, in_query_v2, keys_of, send

from cloche.testing.platform import Platform

NOT_SIGNED = "There were headers present in the request which were not signed"
SECRET, MINE = b"the signer's secret", b"what the link was given for"
# What an added header would do; the verdict reads the object that was written.
ADDED = [
    ("x-amz-copy-source", "signer/secret"),
    ("x-amz-meta-owner", "attacker"),
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-server-side-encryption", "AES256"),
    ("x-amz-website-redirect-location", "https://attacker.example/"),
]
ADDED_AT = "At 0e393ec the header was obeyed: the object was written as it says."


@dataclass
class Signer:
    """Who gives links away: has a bucket with a secret in it."""

    keys: Keys
    s3: Any

    def written(self, key: str) -> dict[str, Any] | None:
        """Return the object as it is now; None when there is none."""
        try:
            found: dict[str, Any] = self.s3.get_object(Bucket="signer", Key=key)
        except ClientError:
            return None
        return found | {"Body": found["Body"].read()}


@pytest.fixture(scope="module")
def signer(platform: Platform) -> Iterator[Signer]:
    s3 = platform.client("s3")
    s3.create_bucket(Bucket="signer")
    s3.put_object(Bucket="signer", Key="secret", Body=SECRET)
    s3.put_object(Bucket="signer", Key="public", Body=b"for everybody")
    yield Signer(keys_of(platform), s3)


def refused(answer: Answer, header: str) -> None:
    assert answer.status == 403, answer.body
    assert f"<Code>AccessDenied</Code><Message>{NOT_SIGNED}</Message>" in answer
    assert f"<HeadersNotSigned>{header}</HeadersNotSigned>" in answer


@pytest.mark.control(ADDED_AT)
@pytest.mark.parametrize(("header", "value"), ADDED)
def test_header_added_to_a_presigned_put(signer: Signer, header: str, value: str) -> None:
    key = f"link-{header}"
    link = in_query(signer.keys, "s3", "PUT", f"/signer/{key}")
    body = b"" if header == "x-amz-copy-source" else MINE
    answer = send(signer.keys, "PUT", link, [(header, value)], body)
    assert signer.written(key) is None
    refused(answer, header)
    # The link itself is good.
    assert send(signer.keys, "PUT", link, [], MINE).status == 200
    now = signer.written(key)
    assert now is not None and now["Body"] == MINE


@pytest.mark.control(ADDED_AT)
@pytest.mark.parametrize(("header", "value"), ADDED)
def test_header_added_to_a_signed_put(signer: Signer, header: str, value: str) -> None:
    key = f"signed-{header}"
    body = b"" if header == "x-amz-copy-source" else MINE
    headers = in_header(signer.keys, "s3", "PUT", f"/signer/{key}", body=body)
    answer = send(signer.keys, "PUT", f"/signer/{key}", [*headers, (header, value)], body)
    assert signer.written(key) is None
    refused(answer, header)
    assert send(signer.keys, "PUT", f"/signer/{key}", headers, body).status == 200


@pytest.mark.control("At 0e393ec the part held the other object's bytes.")
def test_copy_source_added_to_a_presigned_part(signer: Signer) -> None:
    upload = signer.s3.create_multipart_upload(Bucket="signer", Key="parts")["UploadId"]
    query = f"partNumber=1&uploadId={upload}"
    link = in_query(signer.keys, "s3", "PUT", "/signer/parts", query)
    answer = send(signer.keys, "PUT", link, [("x-amz-copy-source", "signer/secret")])
    listed = signer.s3.list_parts(Bucket="signer", Key="parts", UploadId=upload)
    assert not listed.get("Parts")
    refused(answer, "x-amz-copy-source")


@pytest.mark.control("At 0e393ec the header won over the value that the URL was signed with.")
def test_copy_source_beside_the_one_that_a_v2_link_signed(signer: Signer) -> None:
    amz = {"x-amz-copy-source": "signer/public"}
    link = in_query_v2(signer.keys, "PUT", "/signer/v2copy", amz)
    answer = send(signer.keys, "PUT", link, [("x-amz-copy-source", "signer/secret")])
    assert signer.written("v2copy") is None
    assert answer.status == 403 and "<Code>SignatureDoesNotMatch</Code>" in answer


@pytest.mark.control("At 0e393ec the object was kept as text/html.")
def test_content_type_beside_the_one_that_a_v2_link_signed(signer: Signer) -> None:
    link = in_query_v2(signer.keys, "PUT", "/signer/v2type", kind="text/plain")
    answer = send(signer.keys, "PUT", link, [("Content-Type", "text/html")], MINE)
    assert signer.written("v2type") is None
    assert answer.status == 403 and "<Code>SignatureDoesNotMatch</Code>" in answer
    assert send(signer.keys, "PUT", link, [("Content-Type", "text/plain")], MINE).status == 200


@pytest.mark.control("At 0e393ec the trailer was taken for a header: the metadata were kept.")
def test_header_in_a_trailer_of_http(signer: Signer) -> None:
    path = "/signer/http-trailer"
    length = {"x-amz-decoded-content-length": "4"}
    kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = in_header(signer.keys, "s3", "PUT", path, length, payload=kind)
    inner = b"4\r\nmine\r\n0\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\nx-amz-meta-owner: attacker\r\n\r\n" % (len(inner), inner)
    chunked = [*headers, ("Transfer-Encoding", "chunked")]
    answer = send(signer.keys, "PUT", path, chunked, body, length=False)
    found = signer.written("http-trailer")
    assert answer.status == 200 and found is not None
    assert (found["Metadata"], found["Body"]) == ({}, b"mine")


@pytest.mark.control("At 0e393ec the log group was gone.")
def test_target_chosen_after_signing(platform: Platform) -> None:
    logs, keys = platform.client("logs"), keys_of(platform)
    logs.create_log_group(logGroupName="precious")
    body = json.dumps({"logGroupName": "precious"}).encode()
    kind = {"content-type": "application/x-amz-json-1.1"}
    headers = in_header(keys, "logs", "POST", "/", kind, body)
    target = ("X-Amz-Target", "Logs_20140328.DeleteLogGroup")
    answer = send(keys, "POST", "/", [*headers, target], body)
    groups = logs.describe_log_groups(logGroupNamePrefix="precious")["logGroups"]
    assert len(groups) == 1
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "__type": "InvalidSignatureException",
        "message": "'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization.",
    }


@pytest.mark.control("At 0e393ec the endpoint was looked for: the header had been taken.")
def test_variant_chosen_after_signing(platform: Platform) -> None:
    keys, path = keys_of(platform), "/endpoints/none/invocations"
    headers = in_header(keys, "sagemaker", "POST", path, {"content-type": "text/csv"}, b"1")
    answer = send(keys, "POST", path, headers, b"1")
    assert "ValidationError" in answer or "not found" in answer
    added = ("X-Amzn-SageMaker-Target-Variant", "canary")
    answer = send(keys, "POST", path, [*headers, added], b"1")
    assert answer.status == 403
    wanted = "'X-Amzn-Sagemaker-Target-Variant' must be a 'SignedHeader' in the AWS Authorization."
    assert wanted in answer


@pytest.mark.control("At 0e393ec the token in the header that was not signed was taken.")
def test_session_token_added_after_signing(platform: Platform) -> None:
    keys = keys_of(platform)
    assert keys.token is not None
    without = Keys(keys.address, keys.access, keys.secret, None, keys.region)
    headers = in_header(without, "s3", "GET", "/")
    answer = send(keys, "GET", "/", [*headers, ("x-amz-security-token", keys.token)])
    refused(answer, "x-amz-security-token")


@pytest.mark.control("At 0e393ec the second header was ignored and the object given out.")
@pytest.mark.parametrize("second", ["Basic YTpi", "", "Bearer x=y", "AWS a:b"])
def test_second_authorization(signer: Signer, second: str) -> None:
    headers = in_header(signer.keys, "s3", "GET", "/signer/secret")
    answer = send(signer.keys, "GET", "/signer/secret", [*headers, ("Authorization", second)])
    assert answer.status == 400
    assert "<Code>AuthorizationHeaderMalformed</Code>" in answer
    assert SECRET not in answer.body


@pytest.mark.control("At 0e393ec a request signed for another service was answered by SageMaker.")
def test_credential_named_twice(platform: Platform) -> None:
    keys, body = keys_of(platform), b"{}"
    kind = {"x-amz-target": "SageMaker.ListModels", "content-type": "application/x-amz-json-1.1"}
    headers = dict(in_header(keys, "logs", "POST", "/", kind, body))
    other = f"Credential={keys.access}/{keys.scope('sagemaker', headers['x-amz-date'][:8])}"
    headers["authorization"] = headers["authorization"].replace(
        "AWS4-HMAC-SHA256 ", f"AWS4-HMAC-SHA256 {other}, "
    )
    answer = send(keys, "POST", "/", list(headers.items()), body)
    assert answer.status == 400
    assert json.loads(answer.body)["__type"] == "IncompleteSignatureException"
