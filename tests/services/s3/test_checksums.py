"""What a client says of its payload is checked, however it says it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
from typing import Any

import pytest
from awscrt import checksums as crt
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from s3_server import KEY, Served
from wire import body, refused

DATA = os.urandom(300_000)


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


SUMS = {
    "CRC32": encoded(crt.crc32(DATA).to_bytes(4, "big")),
    "CRC32C": encoded(crt.crc32c(DATA).to_bytes(4, "big")),
    "CRC64NVME": encoded(crt.crc64nvme(DATA).to_bytes(8, "big")),
    "SHA1": encoded(hashlib.sha1(DATA).digest()),
    "SHA256": encoded(hashlib.sha256(DATA).digest()),
}


@pytest.mark.parametrize("algorithm", SUMS)
def test_in_a_header(s3: Any, bucket: str, algorithm: str, served: Served) -> None:
    name = f"Checksum{algorithm}"
    put = s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{name: SUMS[algorithm]})
    assert (put[name], put["ChecksumType"]) == (SUMS[algorithm], "FULL_OBJECT")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[name] == SUMS[algorithm]
    assert name not in s3.head_object(Bucket=bucket, Key="k")
    before = served.blobs()
    wrong = encoded(bytes(len(base64.b64decode(SUMS[algorithm]))))
    refused(
        "BadDigest",
        f"The {algorithm} you specified did not match the calculated checksum.",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{name: wrong}),
    )
    assert served.blobs() == before
    refused(
        "InvalidRequest",
        f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.",
        400,
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{name: "AAA"}),
    )


def send(served: Served, bucket: str, payload: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """Sign and send a PUT as given; return status and body."""
    url = f"http://127.0.0.1:{served.port}/{bucket}/k"
    request = AWSRequest("PUT", url, headers=headers, data=payload)
    credentials = Credentials(KEY.access_key_id, KEY.secret_access_key)
    auth = S3SigV4Auth(credentials, "s3", "us-east-1")
    if "X-Amz-Content-SHA256" in headers:
        auth.payload = lambda request: headers["X-Amz-Content-SHA256"]  # type: ignore[method-assign]
    auth.add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("PUT", f"/{bucket}/k", body=payload, headers=dict(request.headers))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def chunked(data: bytes, trailer: str) -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(data), data, trailer.encode())


@pytest.mark.parametrize("algorithm", SUMS)
def test_in_a_trailer(served: Served, s3: Any, bucket: str, algorithm: str) -> None:
    header = f"x-amz-checksum-{algorithm.lower()}"
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "X-Amz-Decoded-Content-Length": str(len(DATA)),
        "X-Amz-Trailer": header,
    }
    status, _ = send(served, bucket, chunked(DATA, f"{header}:{SUMS[algorithm]}"), headers)
    assert status == 200
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got[f"Checksum{algorithm}"] == SUMS[algorithm]
    assert "ContentEncoding" not in got
    assert body(got) == DATA
    wrong = encoded(bytes(len(base64.b64decode(SUMS[algorithm]))))
    status, text = send(served, bucket, chunked(DATA, f"{header}:{wrong}"), headers)
    assert status == 400
    assert "<Code>BadDigest</Code>" in text
    status, text = send(served, bucket, chunked(DATA, "x-other:1"), headers)
    assert status == 400
    assert "<Code>MalformedTrailerError</Code>" in text


def test_without_any_the_default_is_kept(served: Served, s3: Any, bucket: str) -> None:
    plain = served.client(request_checksum_calculation="when_required")
    put = plain.put_object(Bucket=bucket, Key="k", Body=DATA)
    assert put["ChecksumCRC64NVME"] == SUMS["CRC64NVME"]


def test_content_md5(served: Served, bucket: str) -> None:
    good = encoded(hashlib.md5(DATA).digest())
    assert send(served, bucket, DATA, {"Content-MD5": good})[0] == 200
    status, text = send(served, bucket, DATA, {"Content-MD5": encoded(bytes(16))})
    assert status == 400
    assert "<Code>BadDigest</Code>" in text
    assert "The Content-MD5 you specified did not match what we received." in text
    status, text = send(served, bucket, DATA, {"Content-MD5": "AAAA"})
    assert status == 400
    assert "<Code>InvalidDigest</Code>" in text


def test_contradictions(served: Served, bucket: str) -> None:
    two = {"x-amz-checksum-crc32": SUMS["CRC32"], "x-amz-checksum-sha1": SUMS["SHA1"]}
    for headers, message in (
        (
            two,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ),
        (
            {"x-amz-sdk-checksum-algorithm": "CRC32"},
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or "
            "x-amz-trailer headers were found.",
        ),
        (
            {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": SUMS["CRC32"]},
            "Value for x-amz-sdk-checksum-algorithm header is invalid.",
        ),
    ):
        status, text = send(served, bucket, DATA, headers)
        assert status == 400
        assert "<Code>InvalidRequest</Code>" in text
        assert message in text


def test_streams_without_a_length_are_refused(served: Served, bucket: str) -> None:
    url = f"http://127.0.0.1:{served.port}/{bucket}/k"
    request = AWSRequest("PUT", url, data=io.BytesIO(b""))
    credentials = Credentials(KEY.access_key_id, KEY.secret_access_key)
    auth = S3SigV4Auth(credentials, "s3", "us-east-1")
    auth.payload = lambda request: "UNSIGNED-PAYLOAD"  # type: ignore[method-assign]
    auth.add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request(
        "PUT", f"/{bucket}/k", body=iter([b"x"]), headers=dict(request.headers), encode_chunked=True
    )
    answer = connection.getresponse()
    assert answer.status == 411
    assert "You must provide the Content-Length HTTP header." in answer.read().decode()
