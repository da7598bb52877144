"""Requests that are to hold everybody up: what the server's thread spends on them, and who waits.

The verdict is the CPU time of the thread that serves, read on that thread, and what another
client gets meanwhile; never how long the attacker's own request took.
"""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from by_hand import EMPTY, Answer, Keys, in_header, keys_of, raw, read_answer, send
from training_client import wait_for

from cloche.core import home as homes
from cloche.gateway import body as bodies
from cloche.gateway import listener
from cloche.gateway.cbor_values import head as cbor_head
from cloche.gateway.limits import NODES
from cloche.testing.platform import Platform

MIB = 1024 * 1024
ROUNDS = 8
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def keys(platform: Platform) -> Iterator[Keys]:
    platform.client("s3").create_bucket(Bucket="load")
    # The tests' own heap is none of the server's: its collection is not what is measured.
    gc.collect()
    gc.freeze()
    yield keys_of(platform)
    gc.unfreeze()


def cpu(platform: Platform, what: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds that the serving thread spends on something, and its result."""

    async def spent() -> float:
        return time.thread_time()

    before = platform.call(spent())
    result = what()
    return platform.call(spent()) - before, result


def linear(platform: Platform, attempt: Callable[[int], Answer], size: int) -> list[Answer]:
    """Send an attempt of a size and of twice the size; its cost at most 2.5 times as much."""
    attempt(size // 10)  # what is made once
    once = twice = float("inf")
    answers: list[Answer] = []
    # The least of several: what the machine's other work adds, it does not add each time.
    for _ in range(ROUNDS):
        for count in (size, 2 * size):
            spent, answer = cpu(platform, lambda n=count: attempt(n))
            answers.append(answer)
            once, twice = (min(once, spent), twice) if count == size else (once, min(twice, spent))
        if twice <= 2.5 * once:
            return answers
    raise AssertionError(f"{once:.3f} s for {size}, {twice:.3f} s for twice as much")


def connected(keys: Keys) -> socket.socket:
    where = urlsplit(keys.address)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def poured(keys: Keys, begin: bytes, more: bytes, most: int) -> tuple[int, Answer]:
    """Send `more` again and again until the server closes; return how much it took."""
    with connected(keys) as connection:
        connection.sendall(begin)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most:
                sent += connection.send(more)
        return sent, read_answer(connection)


def closed(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection on which nothing was to come."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# ---------------------------------------------------------------------- before any signature


@pytest.mark.control("At 0e393ec 300 MB of one header were read, 10 s of CPU each time.")
@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless",
        b"GET /",
    ],
    ids=["value", "name", "path"],
)
def test_endless_head(platform: Platform, keys: Keys, begin: bytes) -> None:
    spent, (sent, answer) = cpu(platform, lambda: poured(keys, begin, b"a" * 65536, 64 * MIB))
    assert sent < 32 * MIB  # what the system's buffers hold, not what the server read
    assert spent < 0.5, spent
    assert answer.status in (0, 400, 431)


@pytest.mark.control("At 0e393ec 3.4 MB of them took 40 s of CPU.")
def test_repeated_headers(platform: Platform, keys: Keys) -> None:
    content = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 600_000 + b"\r\n"
    spent, answer = cpu(platform, lambda: raw(keys, content))
    assert spent < 0.5, spent
    assert answer.status in (0, 431)
    # As many as a head may have: no more than linear.
    content = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: bbbbbbb\r\n" * 500 + b"\r\n"
    spent, answer = cpu(platform, lambda: raw(keys, content))
    assert spent < 0.1 and answer.status == 403


@pytest.mark.control("At 0e393ec the connection was kept for ever.")
def test_head_that_never_ends(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SILENT_S", 0.5)
    with connected(keys) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        answer = read_answer(connection)
    assert (answer.status, answer.body) == (408, b"Request Timeout")


@pytest.mark.control("At 0e393ec the second request of a connection was waited for, for ever.")
def test_later_head_that_never_ends(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_TIMEOUT_S", 0.5)
    with connected(keys) as connection:
        connection.sendall(b"GET /_cloche/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection).status == 200
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert read_answer(connection).status == 408


@pytest.mark.control("At 0e393ec a connection that sends nothing was kept for ever.")
def test_silent_connection(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SILENT_S", 0.5)
    with connected(keys) as connection:
        assert read_answer(connection) == Answer(0, b"")


@pytest.mark.control("At 0e393ec all of them were kept, and each costs a descriptor.")
def test_crowd_of_silent_connections(platform: Platform, keys: Keys) -> None:
    most = platform.app.listener.crowd.most_silent
    crowd = [connected(keys) for _ in range(most + 50)]
    try:
        # Somebody who has something to say is heard.
        assert send(keys, "GET", "/_cloche/health").status == 200
        assert wait_for(lambda: sum(map(closed, crowd)) >= 50, 20)
        # The oldest are gone, not the newest.
        assert closed(crowd[0]) and not closed(crowd[-1])
    finally:
        for connection in crowd:
            connection.close()


@pytest.mark.control("At 0e393ec 60 MB were read and parsed: 7 s of CPU, for nobody.")
def test_form_of_nobody(platform: Platform, keys: Keys) -> None:
    body = b"&a=b" * (15 * MIB)
    spent, answer = cpu(platform, lambda: send(keys, "POST", "/", list(FORM.items()), body))
    assert spent < 0.5, spent
    assert answer.status in (0, 413)
    small = b"Action=ListUsers&Version=2010-05-08" + b"&a=b" * 15_000
    spent, answer = cpu(platform, lambda: send(keys, "POST", "/", list(FORM.items()), small))
    assert spent < 0.3 and answer.status == 403


@pytest.mark.control("At 0e393ec the pattern that looked for the service was quadratic.")
def test_authorization_that_begins_again_and_again(platform: Platform, keys: Keys) -> None:
    text = "AWS4-HMAC-SHA256 " + "Credential=" * 5_500
    spent, answer = cpu(platform, lambda: send(keys, "GET", "/", [("Authorization", text)]))
    assert spent < 0.2, spent
    assert answer.status == 400


@pytest.mark.control("At 0e393ec the canonical request had 400 MB.")
def test_signed_header_named_ten_thousand_times(platform: Platform, keys: Keys) -> None:
    headers = dict(
        in_header(keys, "sagemaker", "POST", "/", {"x-amz-target": "SageMaker.ListModels"})
    )
    headers["x-amz-m"] = "v" * 30_000
    begin, _, end = headers["authorization"].partition("SignedHeaders=host")
    headers["authorization"] = f"{begin}SignedHeaders={'x-amz-m;' * 3_500}host{end}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent, answer = cpu(platform, lambda: send(keys, "POST", "/", list(headers.items())))
    assert spent < 0.2, spent
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    assert answer.status == 400


@pytest.mark.control("At 0e393ec the frames of a body's chunks and its trailer had no bound.")
@pytest.mark.parametrize(
    "frame", [b"5;ext=", b"0\r\nX-Trailer: ", b"0\r\n"], ids=["extension", "trailer", "trailers"]
)
def test_endless_frames_of_a_body(platform: Platform, keys: Keys, frame: bytes) -> None:
    begin = b"PUT /load/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + frame
    more = b"a: b\r\n" * 10_000 if frame.endswith(b"\r\n") else b"a" * 65536
    spent, (sent, _) = cpu(platform, lambda: poured(keys, begin, more, 64 * MIB))
    assert sent < 32 * MIB and spent < 0.5, (sent, spent)


@pytest.mark.control("At 0e393ec the body was waited for, for ever.")
def test_body_that_never_comes(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_IDLE_S", 0.5)
    headers = in_header(keys, "s3", "PUT", "/load/stalled", payload="UNSIGNED-PAYLOAD")
    begun = [*headers, ("Content-Length", "10")]
    answer = send(keys, "PUT", "/load/stalled", begun, b"abc", length=False)
    assert answer.status == 400 and "<Code>RequestTimeout</Code>" in answer


@pytest.mark.control("At 0e393ec S3 took heads of any size.")
def test_head_longer_than_s3_takes(keys: Keys) -> None:
    headers = in_header(keys, "s3", "GET", "/", {"x-amz-m": "v" * 9_000})
    answer = send(keys, "GET", "/", headers)
    assert answer.status == 400
    text = "Your request header section exceeds the maximum allowed size."
    assert f"<Code>RequestHeaderSectionTooLarge</Code><Message>{text}</Message>" in answer
    assert "<MaxSizeAllowed>8192</MaxSizeAllowed>" in answer


@pytest.mark.control(
    "At 0e393ec each byte had the whole head searched; a name of 30 KB was looked up."
)
def test_head_of_a_connect(platform: Platform, keys: Keys) -> None:
    server = homes.read_server(platform.home)
    assert server is not None
    proxy = Keys(server.proxy, keys.access, keys.secret, None)

    def trickle() -> Answer:
        with connected(proxy) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"CONNECT x:1 HTTP/1.1\r\n" + b"a" * 60_000)
            for _ in range(3_000):
                connection.sendall(b"a")
            connection.sendall(b"a" * 10_000)
            return read_answer(connection)

    spent, answer = cpu(platform, trickle)
    assert answer.status == 400 and spent < 0.5, (answer, spent)
    long = raw(proxy, b"CONNECT " + b"a" * 30_000 + b":443 HTTP/1.1\r\n\r\n")
    assert long.status == 400 and b"characters at most" in long.body


# ---------------------------------------------------------------------- with a right signature


def json_call(keys: Keys, target: str, body: bytes) -> Answer:
    kind = {"x-amz-target": target, "content-type": "application/x-amz-json-1.1"}
    service = "logs" if target.startswith("Logs") else "sagemaker"
    return send(keys, "POST", "/", in_header(keys, service, "POST", "/", kind, body), body)


@pytest.mark.control("At 0e393ec one sentence for each: 1.2 MB in, 85 MB out, 15 s of CPU.")
def test_many_bad_members(platform: Platform, keys: Keys) -> None:
    def attempt(count: int) -> Answer:
        tags = [{}] * count
        return json_call(keys, "SageMaker.CreateModel", json.dumps({"Tags": tags}).encode())

    for answer in linear(platform, attempt, 100_000):
        assert answer.status == 400 and len(answer.body) < 64 * 1024
        assert json.loads(answer.body)["message"].startswith("10 validation errors detected: ")


@pytest.mark.control("At 0e393ec the sentence repeated the whole value, once a constraint.")
def test_long_bad_value(platform: Platform, keys: Keys) -> None:
    def attempt(size: int) -> Answer:
        body = json.dumps({"EndpointName": "_" * size}).encode()
        return json_call(keys, "SageMaker.DescribeEndpoint", body)

    for answer in linear(platform, attempt, 4_000_000):
        assert answer.status == 400 and len(answer.body) < 64 * 1024


@pytest.mark.control("At 0e393ec 2 million values were read into objects, whatever came of it.")
def test_wide_json(platform: Platform, keys: Keys) -> None:
    body = b'{"Tags":[' + b"{}," * 2_000_000 + b"{}]}"
    spent, answer = cpu(platform, lambda: json_call(keys, "SageMaker.CreateModel", body))
    assert answer.status == 400 and f"more than {NODES} values" in answer
    assert spent < 0.5, spent


@pytest.mark.control("At 0e393ec documents of any depth that Python's parser takes were read.")
def test_deep_json(platform: Platform, keys: Keys) -> None:
    body = b'{"Tags":' + b"[" * 500 + b"]" * 500 + b"}"
    spent, answer = cpu(platform, lambda: json_call(keys, "SageMaker.CreateModel", body))
    assert answer.status == 400 and "SerializationException" in answer
    assert spent < 0.5, spent


def xml_call(keys: Keys, body: bytes) -> Answer:
    headers = in_header(keys, "s3", "POST", "/load", body=body, query="delete=")
    return send(keys, "POST", "/load?delete=", headers, body)


@pytest.mark.control("At 0e393ec 2 million took 17 s of CPU.")
def test_deep_xml(platform: Platform, keys: Keys) -> None:
    body = b"<a>" * 500_000 + b"</a>" * 500_000
    spent, answer = cpu(platform, lambda: xml_call(keys, body))
    assert answer.status == 400 and "<Code>MalformedXML</Code>" in answer
    assert spent < 0.5, spent


@pytest.mark.control("At 0e393ec documents of 64 MB were read.")
def test_wide_xml(platform: Platform, keys: Keys) -> None:
    def attempt(count: int) -> Answer:
        return xml_call(keys, b"<Delete>" + b"<a/>" * count + b"</Delete>")

    linear(platform, attempt, 45_000)
    for count in (1_000_000, 4_000_000):
        spent, answer = cpu(platform, lambda n=count: attempt(n))
        assert answer.status in (0, 400, 413) and spent < 0.5, (answer.status, spent)


def form_call(keys: Keys, form: bytes) -> Answer:
    body = b"Action=CreateRole&Version=2010-05-08&RoleName=r&" + form
    return send(keys, "POST", "/", in_header(keys, "iam", "POST", "/", FORM, body), body)


@pytest.mark.control("At 0e393ec 3 million dots took 14 s of CPU.")
def test_name_of_many_dots(platform: Platform, keys: Keys) -> None:
    spent, answer = cpu(platform, lambda: form_call(keys, b"." * 3_000_000 + b"=x"))
    assert answer.status == 404 and "<Code>MalformedQueryString</Code>" in answer
    assert spent < 0.5, spent


@pytest.mark.control("At 0e393ec forms of 64 MB were parsed, twice.")
@pytest.mark.parametrize("field", [b"a=b&", b"a.b.c.d=e&", b"Tags.member.%d.Key=k&"])
def test_form_of_many_fields(platform: Platform, keys: Keys, field: bytes) -> None:
    def attempt(count: int) -> Answer:
        many = (field % number if b"%d" in field else field for number in range(count))
        return form_call(keys, b"".join(many))

    linear(platform, attempt, 20_000)
    spent, answer = cpu(platform, lambda: attempt(150_000))
    assert answer.status == 404 and spent < 1.0, (answer.status, spent)


def cbor_call(keys: Keys, body: bytes) -> Answer:
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    kind = {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}
    headers = in_header(keys, "monitoring", "POST", path, kind, body)
    return send(keys, "POST", path, headers, body)


@pytest.mark.control("At 0e393ec CBOR of 64 MB was read value by value.")
@pytest.mark.parametrize(
    "body",
    [
        cbor_head(4, 3_000_000) + b"\x00" * 3_000_000,
        b"\x5f" + b"\x40" * 1_000_000 + b"\xff",
    ],
    ids=["wide", "parts"],
)
def test_cbor(platform: Platform, keys: Keys, body: bytes) -> None:
    spent, answer = cpu(platform, lambda: cbor_call(keys, body))
    assert answer.status == 400 and spent < 1.0, (answer.status, spent)


@pytest.mark.control("At 0e393ec there was no bound of what was read for who can't sign.")
def test_bodies_whose_signature_is_not_proven(
    platform: Platform, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = Keys(keys.address, keys.access, "not the secret", keys.token, keys.region)
    monkeypatch.setattr(bodies.UNPROVEN, "most", 10 * MIB)
    held: list[socket.socket] = []
    try:
        for _ in range(3):
            kind = {"x-amz-target": "SageMaker.ListModels"}
            headers = in_header(liar, "sagemaker", "POST", "/", kind, payload=EMPTY)
            more = [("Content-Length", str(4 * MIB)), ("Expect", "100-continue")]
            lines = [f"{k}: {v}" for k, v in [*headers, *more]]
            held.append(connected(keys))
            held[-1].sendall("\r\n".join(["POST / HTTP/1.1", *lines, "", "x"]).encode())
        assert read_answer(held[2]).status == 503
        assert json_call(keys, "SageMaker.ListModels", b"{}").status == 200
    finally:
        for connection in held:
            connection.close()
    wait_for(lambda: bodies.UNPROVEN.taken == 0, 20)
    big = json.dumps({"NameContains": "a" * MIB}).encode()
    assert json_call(keys, "SageMaker.ListModels", big).status == 400


@pytest.fixture(autouse=True)
def serves_afterwards(keys: Keys) -> Iterator[None]:
    """Whatever was tried, the next client is served."""
    yield
    assert send(keys, "GET", "/_cloche/health").status == 200
