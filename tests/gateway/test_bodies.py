"""Payloads: streamed, chunked, signed, too large, refused early; and responses that stream."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fake_services import KEY, Served, service, serving
from raw_http import Answer, send, signed

from cloche.core.errors import AwsError
from cloche.gateway.body import Disconnected, RawBody
from cloche.gateway.message import Response
from cloche.gateway.send import send_response
from cloche.gateway.signature import signing_key
from cloche.operation import FileSlice, Reply

EMPTY = hashlib.sha256(b"").hexdigest()
STORED: dict[str, bytes] = {}
TRAILERS: dict[str, str] = {}


async def put_object(call: Any, *, Bucket: str, Key: str, Body: Any, **_: Any) -> dict[str, Any]:
    if Bucket == "full":
        raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
    pieces = [piece async for piece in Body]
    STORED[Key] = b"".join(pieces)
    TRAILERS.clear()
    TRAILERS.update(Body.trailers)
    return {"ETag": f'"{len(STORED[Key])}/{Body.length}"'}


def get_object(call: Any, *, Bucket: str, Key: str, **_: Any) -> Reply:
    if Bucket == "stream":

        async def pieces() -> AsyncIterator[bytes]:
            for number in range(3):
                await asyncio.sleep(0)
                yield b"%d" % number

        return Reply({"Body": pieces()})
    path = Path(Key)
    size = path.stat().st_size
    part = FileSlice(os.open(path, os.O_RDONLY), 1, size - 1)
    return Reply({"Body": part}, 206, {"content-range": "bytes 1-"})


def head_object(call: Any, *, Bucket: str, Key: str, **_: Any) -> Reply:
    if Key == "same":
        raise AwsError("NotModified", "Not Modified", 304, headers={"etag": '"x"'})
    return Reply({"ContentLength": 12345, "ETag": '"x"', "Metadata": {"A": "b"}})


def delete_objects(call: Any, *, Bucket: str, Delete: Any, **_: Any) -> dict[str, Any]:
    return {"Deleted": [{"Key": one["Key"]} for one in Delete["Objects"]]}


def put_metric_data(call: Any, *, Namespace: str, MetricData: Any) -> None:
    STORED["metrics"] = str(len(MetricData)).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    services = (
        service(
            "s3",
            {
                "PutObject": put_object,
                "GetObject": get_object,
                "HeadObject": head_object,
                "DeleteObjects": delete_objects,
            },
        ),
        service("cloudwatch", {"PutMetricData": put_metric_data}),
    )
    with serving(tmp_path_factory.mktemp("bodies"), *services) as one:
        yield one


def chunks(served: Served, kind: str, data: list[bytes], *, spoil: int = -1) -> Answer:
    """Send an aws-chunked PUT with signed chunks; `spoil` names one to alter after signing."""
    trailer = kind.endswith("TRAILER")
    total = sum(map(len, data))
    headers = {"x-amz-content-sha256": kind, "x-amz-decoded-content-length": str(total)}
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    auth = sign(served, "/bucket/chunks", headers)
    stamp, previous = auth["X-Amz-Date"], auth["Authorization"].rpartition("=")[2]
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    key = signing_key(KEY.secret_access_key, stamp[:8], "us-east-1", "s3")

    def next_signature(name: str, digests: str) -> str:
        text = f"AWS4-HMAC-SHA256-{name}\n{stamp}\n{scope}\n{previous}\n{digests}"
        return hmac.digest(key, text.encode(), "sha256").hex()

    body = []
    for number, piece in enumerate([*data, b""]):
        digest = hashlib.sha256(piece).hexdigest()
        previous = next_signature("PAYLOAD", f"{EMPTY}\n{digest}")
        if number == spoil:
            piece = piece[:-1] + b"!"
        end = b"" if not piece and trailer else b"\r\n"
        body.append(b"%x;chunk-signature=%s\r\n%s" % (len(piece), previous.encode(), piece) + end)
    if trailer:
        line = "x-amz-checksum-crc32:AAAAAA=="
        previous = next_signature("TRAILER", hashlib.sha256(f"{line}\n".encode()).hexdigest())
        if spoil == len(data) + 1:
            previous = "0" * 64
        body.append(f"{line}\r\nx-amz-trailer-signature:{previous}\r\n\r\n".encode())
    auth["Content-Length"] = str(sum(map(len, body)))
    return send(served.url, "PUT", "/bucket/chunks", auth, body)


def sign(served: Served, path: str, headers: dict[str, str]) -> dict[str, str]:
    """Return signed headers for a payload of the kind that `headers` tell."""
    from_botocore = signed(served.url, "s3", "PUT", path, KEY, headers=headers)
    kind = headers["x-amz-content-sha256"]
    # botocore overwrites the payload's kind: sign again with ours.
    stamp = from_botocore["X-Amz-Date"]
    all_headers = {k.lower(): v for k, v in headers.items()}
    all_headers |= {"host": served.url.removeprefix("http://"), "x-amz-date": stamp}
    names = ";".join(sorted(all_headers))
    lines = "".join(f"{name}:{all_headers[name]}\n" for name in sorted(all_headers))
    canonical = f"PUT\n{path}\n\n{lines}\n{names}\n{kind}"
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = signing_key(KEY.secret_access_key, stamp[:8], "us-east-1", "s3")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return headers | {
        "X-Amz-Date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }


SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"


@pytest.mark.parametrize("kind", [SIGNED, TRAILER])
@pytest.mark.parametrize(
    "data", [[], [b"hello"], [os.urandom(65536), os.urandom(65536), b"end"]], ids=len
)
def test_signed_chunks(served: Served, kind: str, data: list[bytes]) -> None:
    answer = chunks(served, kind, data)
    assert answer.status == 200, answer.body
    assert STORED["chunks"] == b"".join(data)
    size = len(STORED["chunks"])
    assert answer.headers["etag"] == f'"{size}/{size}"'
    assert ({"x-amz-checksum-crc32": "AAAAAA=="} if kind == TRAILER else {}) == TRAILERS


@pytest.mark.parametrize(("kind", "spoil"), [(SIGNED, 0), (SIGNED, 1), (TRAILER, 1), (TRAILER, 3)])
def test_spoiled_chunks(served: Served, kind: str, spoil: int) -> None:
    answer = chunks(served, kind, [b"first", b"second"], spoil=spoil)
    assert (answer.status, answer.xml["Code"]) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("body", "length", "code"),
    [
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n", 5, None),
        (b"5\r\nhello\r\n0\r\n\r\n", 5, None),
        (b"5\r\nhello\r\n0\r\n", 5, None),
        (b"5\r\nhello\r\n0\r\n\r\n", 6, "IncompleteBody"),
        (b"5\r\nhel", 5, "IncompleteBody"),
        (b"zz\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"-5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"+5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"0_5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b" 5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n", 5, "IncompleteBody"),
        (b"5\r\nhello\r\n0\r\na:b\r\na:c\r\n\r\n", 5, "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\n" + b"a:b\r\n" * 9999 + b"\r\n", 5, "MalformedTrailerError"),
        (
            b"5\r\nhello\r\n0\r\n" + b"".join(b"%d:b\r\n" % n for n in range(9999)) + b"\r\n",
            5,
            "MalformedTrailerError",
        ),
        (b"5\r\nhelloXX0\r\n\r\n", 5, "IncompleteBody"),
        (b"", 5, "IncompleteBody"),
    ],
)
def test_unsigned_chunks(served: Served, body: bytes, length: int, code: str | None) -> None:
    kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = {"x-amz-content-sha256": kind, "x-amz-decoded-content-length": str(length)}
    auth = sign(served, "/bucket/chunks", headers)
    answer = send(served.url, "PUT", "/bucket/chunks", auth, body)
    if code is None:
        assert (answer.status, STORED["chunks"]) == (200, b"hello"), answer.body
    else:
        assert (answer.status, answer.xml["Code"]) == (400, code)


@pytest.mark.parametrize("announced", [None, "x-amz-checksum-crc32", "x-amz-meta-a"])
def test_trailers_that_the_signature_tells_of(served: Served, announced: str | None) -> None:
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "5",
    }
    if announced is not None:
        headers["x-amz-trailer"] = announced
    auth = sign(served, "/bucket/chunks", headers)
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AA==\r\nx-amz-website:x\r\n\r\n"
    assert send(served.url, "PUT", "/bucket/chunks", auth, body).status == 200
    arrives = announced == "x-amz-checksum-crc32"
    assert ({"x-amz-checksum-crc32": "AA=="} if arrives else {}) == TRAILERS


@pytest.mark.parametrize("length", ["", "5" * 5000, "+5", "-5"])
def test_decoded_length_that_is_none(served: Served, length: str) -> None:
    headers = {"x-amz-content-sha256": SIGNED, "x-amz-decoded-content-length": length}
    auth = sign(served, "/bucket/chunks", headers)
    answer = send(served.url, "PUT", "/bucket/chunks", auth, b"0\r\n\r\n")
    assert (answer.status, answer.xml["Code"]) == (411, "MissingContentLength")


def test_chunks_without_their_length(served: Served) -> None:
    auth = sign(served, "/bucket/chunks", {"x-amz-content-sha256": SIGNED})
    answer = send(served.url, "PUT", "/bucket/chunks", auth, b"0\r\n\r\n")
    assert (answer.status, answer.xml["Code"]) == (411, "MissingContentLength")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
@pytest.mark.parametrize("signing", [True, False])
def test_put_by_boto3(served: Served, size: int, signing: bool) -> None:
    client = served.client("s3", s3={"payload_signing_enabled": signing})
    data = os.urandom(size)
    answer = client.put_object(Bucket="bucket", Key="boto", Body=data)
    assert STORED["boto"] == data
    assert answer["ETag"] == f'"{size}/{size}"'


def test_refusal_before_the_body_leaves_the_client_able_to_go_on(served: Served) -> None:
    client = served.client("s3")
    for _ in range(3):
        with pytest.raises(ClientError, match="The specified bucket does not exist"):
            client.put_object(Bucket="full", Key="x", Body=b"x" * 500_000)
    client.put_object(Bucket="bucket", Key="after", Body=b"fine")
    assert STORED["after"] == b"fine"


def test_expect_is_answered_with_the_refusal_and_a_close(served: Served) -> None:
    headers = signed(served.url, "s3", "PUT", "/full/x", KEY, body=b"x" * 100)
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    host = served.url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
        head = f"PUT /full/x HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 100\r\n"
        wire.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        data = b""
        while piece := wire.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 404 Not Found")
    assert b"connection: close" in data.lower()


def test_expect_is_answered_with_continue(served: Served) -> None:
    body = b"y" * 100
    headers = signed(served.url, "s3", "PUT", "/bucket/x", KEY, body=body)
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    host = served.url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as wire:
        head = f"PUT /bucket/x HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 100\r\n"
        wire.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert wire.recv(65536).startswith(b"HTTP/1.1 100")
        wire.sendall(body)
        assert wire.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [2, 1000, 300_000, 5_000_001])
def test_file_slice(served: Served, tmp_path: Path, size: int) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data := os.urandom(size))
    open_before = len(os.listdir("/proc/self/fd"))
    answer = served.client("s3").get_object(Bucket="files", Key=str(path))
    assert answer["Body"].read() == data[1:]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == str(size - 1)
    answer["Body"].close()
    assert len(os.listdir("/proc/self/fd")) <= open_before + 2


async def test_file_slice_is_closed_when_sending_fails(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x")
    part = FileSlice(os.open(path, os.O_RDONLY), 0, 1)

    async def broken(_: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await send_response(broken, Response(200, {}, part), "GET")
    with pytest.raises(OSError):
        os.fstat(part.fd)


async def test_stream_is_ended_when_sending_fails() -> None:
    ended = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            ended.append(True)

    async def broken(event: Any) -> None:
        if event.get("body"):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await send_response(broken, Response(200, {}, pieces()), "GET")
    assert ended == [True]


async def test_file_slice_past_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 10)

    async def nowhere(_: Any) -> None: ...

    part = FileSlice(os.open(path, os.O_RDONLY), 0, 1_000_000)
    with pytest.raises(OSError, match="before the slice"):
        await send_response(nowhere, Response(200, {}, part), "GET")


async def test_headers_hold_no_line_ends() -> None:
    sent: list[Any] = []

    async def take(event: Any) -> None:
        sent.append(event)

    await send_response(take, Response(200, {"x": "a\r\nset-cookie: b\x00é☃"}, b""), "GET")
    assert sent[0]["headers"][0] == (b"x", b"a  set-cookie: b \xe9?")


def test_streamed_response(served: Served) -> None:
    body = served.client("s3").get_object(Bucket="stream", Key="x")["Body"]
    assert body.read() == b"012"


def test_head(served: Served) -> None:
    client = served.client("s3")
    answer = client.head_object(Bucket="bucket", Key="x")
    assert (answer["ContentLength"], answer["Metadata"]) == (12345, {"a": "b"})
    with pytest.raises(ClientError) as caught:
        client.head_object(Bucket="bucket", Key="same")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["etag"] == '"x"'


def test_whole_body_of_an_operation_that_does_not_stream(served: Served) -> None:
    objects = [{"Key": f"k{number}"} for number in range(3)]
    answer = served.client("s3").delete_objects(Bucket="bucket", Delete={"Objects": objects})
    assert answer["Deleted"] == objects


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete><Object>",
        b"not xml",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Delete/>',
        '<!DOCTYPE x [<!ENTITY a "b">]><Delete/>'.encode("utf-16"),
        b"<Delete/>",
        b"<Other><Object><Key>k</Key></Object></Other>",
        b"<Delete><Object/></Delete>",
        b"<Delete><Object><Key>k</Key><Key>l</Key></Object></Delete>",
        b"<Delete><Object><Key>k</Key><Other/></Object></Delete>",
        b"<Delete><Object><Key><a/></Key></Object></Delete>",
        b"<Delete><Object><Key>k</Key></Object><Quiet>maybe</Quiet></Delete>",
        b"<Delete><Object><Key>k</Key><Size>%s</Size></Object></Delete>" % (b"9" * 5000),
    ],
)
def test_malformed_xml(served: Served, body: bytes) -> None:
    headers = signed(served.url, "s3", "POST", "/bucket?delete", KEY, body=body)
    answer = send(served.url, "POST", "/bucket?delete", headers, body)
    assert (answer.status, answer.xml["Code"]) == (400, "MalformedXML")
    assert answer.xml["Message"] == (
        "The XML you provided was not well-formed or did not validate against our published schema"
    )


def test_a_body_that_is_needed_and_empty(served: Served) -> None:
    for body in (b"", b" \r\n"):
        headers = signed(served.url, "s3", "POST", "/bucket?delete", KEY, body=body)
        answer = send(served.url, "POST", "/bucket?delete", headers, body)
        assert (answer.status, answer.xml["Code"]) == (400, "MissingRequestBodyError")
        assert answer.xml["Message"] == "Request Body is empty"


def test_an_error_document_is_xml_whatever_it_repeats(served: Served) -> None:
    path = "/bucket?max-keys=%00%07%1B%EF%BF%BE%3C%26"
    answer = send(served.url, "GET", path, signed(served.url, "s3", "GET", path, KEY))
    assert answer.xml["Resource"] == "/bucket"
    path = "/full/%01%00"
    answer = send(served.url, "PUT", path, signed(served.url, "s3", "PUT", path, KEY))
    assert (answer.status, answer.xml["Resource"]) == (404, "/full/\ufffd\ufffd")


def test_compressed_body(served: Served) -> None:
    data = [{"MetricName": f"m{number}", "Value": number / 2} for number in range(500)]
    client = served.client("cloudwatch", request_min_compression_size_bytes=100)
    client.put_metric_data(Namespace="n", MetricData=data)
    assert STORED["metrics"] == b"500"


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"{}")[:-4]], ids=["other", "short"])
def test_malformed_compressed_body(served: Served, body: bytes) -> None:
    asked = {
        "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData",
        "Content-Encoding": "gzip",
    }
    headers = signed(served.url, "monitoring", "POST", "/", KEY, headers=asked, body=body)
    answer = send(served.url, "POST", "/", headers, body)
    assert answer.status == 400
    assert b"SerializationException" in answer.body


def test_body_too_large(served: Served) -> None:
    asked = {"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData"}
    headers = signed(served.url, "monitoring", "POST", "/", KEY, headers=asked, body=b"{}")
    headers["Content-Length"] = str(1 << 40)
    headers["Expect"] = "100-continue"
    answer = send(served.url, "POST", "/", headers)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert b"RequestEntityTooLargeException" in answer.body


async def test_a_client_that_goes_away_ends_the_body() -> None:
    events = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def receive() -> Any:
        return next(events, {"type": "http.disconnect"})

    raw = RawBody(receive, 10, False)
    with pytest.raises(Disconnected):
        [piece async for piece in raw]
