"""What would leave by way of the real S3, or come in by it: secrets, other hosts, endless bodies.

The verdict is what the stand-in for the real S3 has seen, and what the server still answers.
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from cloche.gateway import passing
from cloche.outside import real_s3 as outside
from cloche.testing.platform import Platform, start
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        made.buckets = {"open": Bucket(objects={"a": b"x"}), "sevir": Bucket(objects={"a": b"x"})}
        yield made


@pytest.fixture(scope="module")
def platform(real: StandInS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(
        tmp_path_factory.mktemp("home"), s3_address=real.address, pass_foreign_keys=True
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(real: StandInS3) -> None:
    real.seen.clear()
    real.instead = None


def ask(platform: Platform, target: str, host: str | None = None, **headers: str) -> int:
    """Return the status of a GET whose Host is what the attacker says."""
    connection = http.client.HTTPConnection("127.0.0.1", platform.app.config.port, timeout=30)
    with contextlib.closing(connection):
        headers = {"Host": host or f"127.0.0.1:{platform.app.config.port}", **headers}
        connection.request("GET", target, headers=headers)
        return connection.getresponse().status


FOREIGN = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20240101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)
STAMP = {"x-amz-date": "20240101T000000Z", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
HOSTS = (
    *("attacker.example", "s3.amazonaws.com.attacker.example", "127.0.0.1:22", "169.254.169.254"),
    *("s3.attacker.amazonaws.com", "x.execute-api.us-east-1.amazonaws.com", "amazonaws.com"),
    *("s3.amazonaws.com@attacker.example", "evil.s3.us-eats-1.amazonaws.com"),
)
HERE = ("127.0.0.1:22", "169.254.169.254")  # an unsigned read of these is one of this address


@pytest.mark.control("test_without_a_strict_pattern: a pattern of `.*amazonaws.com` takes four.")
@pytest.mark.parametrize("host", [*HOSTS, "s3.amazonaws.com:8443"])
def test_a_foreign_signature_leads_nowhere_but_to_s3(
    platform: Platform, real: StandInS3, host: str
) -> None:
    assert ask(platform, "/open/a", host, Authorization=FOREIGN, **STAMP) in (400, 403)
    assert real.seen == []


@pytest.mark.control("The same request with the Host of S3 arrives, in this test's last lines.")
@pytest.mark.parametrize("host", [host for host in HOSTS if host not in HERE])
def test_an_unsigned_read_leads_nowhere_but_to_s3(
    platform: Platform, real: StandInS3, host: str
) -> None:
    ask(platform, "/open/a", host)
    assert real.seen == []
    assert ask(platform, "/open/a", "s3.amazonaws.com") == 200
    assert [one.host for one in real.seen] == ["s3.amazonaws.com"]


def test_without_a_strict_pattern() -> None:
    names = [host for host in HOSTS if host.endswith("amazonaws.com")]
    assert len(names) == 4 and not any(map(outside.endpoint, names))


@pytest.mark.control("The same read without the secret arrives, in this test's last line.")
@pytest.mark.parametrize(
    "place", ["query", "query alone", "header beside a foreign key", "referer"]
)
def test_a_session_token_of_ours_never_leaves(
    platform: Platform, real: StandInS3, place: str
) -> None:
    token = platform.environment()["AWS_SESSION_TOKEN"]
    s3 = "open.s3.amazonaws.com"
    match place:
        case "query":
            ask(platform, f"/open/a?X-Amz-Security-Token={requests.utils.quote(token, safe='')}")
        case "alone":
            ask(platform, f"/a?x={token.replace('+', '%2B')}", s3)
        case "header beside a foreign key":
            headers = {**STAMP, "x-amz-security-token": token}
            ask(platform, "/a", s3, Authorization=FOREIGN, **headers)
        case _:
            ask(platform, "/a", s3, Referer=token)
    assert token not in json.dumps([[one.target, dict(one.headers)] for one in real.seen])
    assert ask(platform, "/a", s3) == 200


@pytest.mark.control("test_without_the_list_of_headers: http.client sends what it is given.")
def test_what_a_client_sends_besides_stays_here(platform: Platform, real: StandInS3) -> None:
    headers = {
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic eDp5",
        "X-Forwarded-For": "10.0.0.1",
        "X-Amz-Security-Token": "t",
        "Origin": "https://s3.amazonaws.com",
        "Range": "bytes=0-0",
    }
    assert ask(platform, "/a", "open.s3.amazonaws.com", **headers) == 206
    for one in real.seen:
        assert set(one.headers) <= {"host", "range"}


def test_without_the_list_of_headers(real: StandInS3, tmp_path: Path) -> None:
    direct = outside.RealS3(real.address)
    direct.get("GET", "/open/a", "", {"Cookie": "session=1"}).close()
    assert real.seen[-1].headers["cookie"] == "session=1"


@pytest.mark.control("The same read of a known bucket arrives without its signature, last lines.")
def test_a_mistyped_name_is_asked_for_nowhere(platform: Platform, real: StandInS3) -> None:
    s3 = platform.client("s3")
    for name in ("open", "sevirr", "my-secret-project-bucket"):
        for read in (
            lambda name=name: s3.get_object(Bucket=name, Key="a"),
            lambda name=name: s3.list_objects_v2(Bucket=name),
            lambda name=name: s3.head_object(Bucket=name, Key="a"),
        ):
            with pytest.raises(ClientError):
                read()
    assert real.seen == []
    s3.get_object(Bucket="sevir", Key="a")
    assert [set(one.headers) & {"authorization", "x-amz-date"} for one in real.seen] == [set()]


@pytest.mark.control("test_without_another_page: the same request without its marks arrives.")
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "https://attacker.example"},
        {"Host": "rebound.attacker.example"},
    ],
)
def test_no_page_reads_the_outside_by_this_machines_address(
    platform: Platform, real: StandInS3, headers: dict[str, str]
) -> None:
    host = headers.pop("Host", None) if "Host" in headers else None
    assert ask(platform, "/open/a", host, **headers) == 403
    assert real.seen == []


def test_without_another_page(platform: Platform, real: StandInS3) -> None:
    assert ask(platform, "/open/a") == 200 and len(real.seen) == 1


@pytest.mark.control("The stand-in sends these headers: test_without_the_list_of_answers.")
def test_s3_says_nothing_about_what_pages_may_read_here(
    platform: Platform, real: StandInS3
) -> None:
    real.buckets["cors"] = Bucket(objects={"a": b"<script>"}, headers=CORS | HTML)
    answer = requests.get(f"{platform.address}/cors/a", timeout=30)
    assert answer.content == b"<script>"
    assert not {name.lower() for name in CORS} & {name.lower() for name in answer.headers}
    assert answer.headers["Content-Security-Policy"] == "sandbox"


HTML = {"Content-Type": "text/html"}
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Set-Cookie": "a=b",
    "Location": "https://attacker.example/",
    "Strict-Transport-Security": "max-age=9",
    "Refresh": "0; url=https://attacker.example/",
}


def test_without_the_list_of_answers(real: StandInS3) -> None:
    real.buckets["cors"] = Bucket(objects={"a": b"x"}, headers=CORS)
    answer = outside.RealS3(real.address).get("GET", "/cors/a", "", {})
    assert {name.lower() for name in CORS} <= set(answer.headers)
    answer.close()


@pytest.mark.control("test_without_a_checked_certificate: a client that checks none is answered.")
def test_who_has_no_certificate_for_s3_is_not_asked(tmp_path: Path) -> None:
    with stand_in(tmp_path, names=("attacker.example",)) as false:
        false.buckets["open"] = Bucket(objects={"a": b"forged"})
        with start(tmp_path / "home", s3_address=false.address) as platform:
            answer = requests.get(f"{platform.address}/open/a", timeout=30)
    assert answer.status_code == 503 and b"forged" not in answer.content
    assert "certificate verify failed: Hostname mismatch" in answer.text
    assert false.seen == []


def test_without_a_checked_certificate(tmp_path: Path) -> None:
    with stand_in(tmp_path, names=("attacker.example",)) as false:
        false.buckets["open"] = Bucket(objects={"a": b"forged"})
        context = ssl._create_unverified_context()
        answer = outside.RealS3(false.address, context=context).get("GET", "/open/a", "", {})
        assert answer.whole() == b"forged"


@pytest.mark.control("An answer of that form with a region of S3's is followed: test_passing.py.")
@pytest.mark.parametrize(
    "headers",
    [
        {"Location": "https://attacker.example/a"},
        {"Location": "http://169.254.169.254/latest/meta-data/"},
        {"Location": "https://s3.us-west-2.amazonaws.com.attacker.example/"},
        {"x-amz-bucket-region": "attacker.example/#"},
        {"x-amz-bucket-region": "us-west-2.attacker.example"},
    ],
)
def test_a_redirect_leads_nowhere_but_to_s3(
    platform: Platform, real: StandInS3, headers: dict[str, str]
) -> None:
    def move(handler: Any) -> bool:
        handler.answer(307, b"moved", headers)
        return True

    real.instead = move
    answer = requests.get(f"{platform.address}/moved/a", timeout=30, allow_redirects=False)
    assert answer.status_code == 307 and "Location" not in answer.headers
    assert {one.host for one in real.seen} == {"s3.amazonaws.com"}


@pytest.mark.control(
    "Without the bounds a read of the stand-in takes what comes, for ever: it says no end."
)
def test_an_answer_without_end_ends(
    platform: Platform, real: StandInS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "MOST_UNTOLD", 1 << 20)
    sent = threading.Event()

    def endless(handler: Any) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        sent.set()
        return True

    real.instead = endless
    with pytest.raises(requests.RequestException):
        requests.get(f"{platform.address}/endless/a", timeout=30)
    assert sent.wait(10), "the connection was not let go"
    real.instead = None
    assert ask(platform, "/open/a") == 200


@pytest.mark.control("Without the time a place is held as long as the client keeps its connection.")
def test_clients_that_read_nothing_hold_no_place(
    platform: Platform, real: StandInS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "IDLE_S", 0.5)
    real.buckets["large"] = Bucket(objects={"a": bytes(20 << 20)})
    held = [socket.create_connection(("127.0.0.1", platform.app.config.port)) for _ in range(16)]
    for one in held:
        one.sendall(b"GET /large/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        one.recv(1)
    end = time.monotonic() + 30
    while ask(platform, "/open/a") != 200:
        assert time.monotonic() < end
    for one in held:
        one.close()


@pytest.mark.control("Without the bound the 17th read waits for a thread that never comes free.")
def test_a_crowd_of_readers_holds_nobody_up(platform: Platform, real: StandInS3) -> None:
    go = threading.Event()

    def hang(handler: Any) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        go.wait(30)
        return True

    real.instead = hang
    held = [socket.create_connection(("127.0.0.1", platform.app.config.port)) for _ in range(16)]
    for one in held:
        one.sendall(b"GET /hang/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        one.recv(1)
    answer = requests.get(f"{platform.address}/hang/a", timeout=30)
    assert (answer.status_code, "SlowDown" in answer.text) == (503, True)
    assert platform.client("s3").list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200
    for one in held:
        one.close()
    real.instead = None
    go.set()
    end = time.monotonic() + 30
    while ask(platform, "/open/a") != 200:  # the places come free as the clients have gone
        assert time.monotonic() < end
