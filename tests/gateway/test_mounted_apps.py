"""Applications mounted in the gateway: bodies, streams, WebSockets, prefix, lifespan; and walls."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mounted import PREFIX, App, Mounted, mounted
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cloche.gateway import listener
from cloche.gateway.limits import MESSAGE_BYTES
from cloche.gateway.mounted_apps import Mounts

WITHIN_S = 30.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Mounted]:
    with mounted(tmp_path) as made:
        yield made


def ask(
    served: Mounted, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a path as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WITHIN_S)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def socket_to(served: Mounted, path: str = "/socket", **options: Any) -> Any:
    return connect(
        served.url(path, "ws"), proxy=None, open_timeout=WITHIN_S, close_timeout=WITHIN_S, **options
    )


def refusal(served: Mounted, path: str = "/socket", **options: Any) -> tuple[int, bytes]:
    """Return how a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        socket_to(served, path, **options)
    response = caught.value.response
    return response.status_code, response.body or b""


def test_the_application_knows_where_it_is(served: Mounted) -> None:
    status, _, body = ask(served, f"{PREFIX}/where?a=1&a=2")
    assert status == 200
    assert json.loads(body) == {
        "root_path": PREFIX,
        "path": f"{PREFIX}/where",
        "query": "a=1&a=2",
        "url": f"http://127.0.0.1:{served.port}{PREFIX}/items/a",
        "word": "kept since the start",
    }
    assert ask(served, f"{PREFIX}/items/a%20b")[2] == b"a b"
    assert ask(served, f"{PREFIX}/nothing")[0] == 404


def test_only_what_is_below_the_prefix_is_its(served: Mounted) -> None:
    served.gateway.mounts.add(f"{PREFIX}/inner", Starlette())
    for path in (f"{PREFIX}lication/where", "/_cloche/other", "/_cloche/%61pp/where"):
        status, _, body = ask(served, path)
        assert (status, json.loads(body)["code"]) == (403, "AccessDenied"), path
    assert b"Cloche does not support the service s3." in ask(served, "/app/where")[2]
    assert ask(served, f"{PREFIX}/inner/where")[0] == 404  # the longer prefix wins
    assert json.loads(ask(served, "/_cloche/health")[2])["status"] == "ok"


def test_bodies_of_both_forms_arrive_whole(served: Mounted) -> None:
    data = bytes(range(256)) * 20_000
    assert ask(served, f"{PREFIX}/echo", "PUT", data)[2] == data
    pieces = [data[at : at + 70_001] for at in range(0, len(data), 70_001)]
    assert ask(served, f"{PREFIX}/echo", "PUT", iter(pieces))[2] == data  # in chunks
    assert ask(served, f"{PREFIX}/echo", "PUT", b"")[2] == b""


def test_an_answer_is_streamed_as_it_is_made(served: Mounted) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WITHIN_S)
    connection.request("GET", f"{PREFIX}/slow")
    answer = connection.getresponse()
    assert answer.read1(100) == b"first"  # the second is not made before we ask for it
    assert ask(served, f"{PREFIX}/release")[2] == b"released"
    assert answer.read() == b"second"
    connection.close()


def test_a_websocket_echoes(served: Mounted) -> None:
    with socket_to(served, subprotocols=["v2.echo"]) as websocket:
        assert websocket.subprotocol == "v2.echo"
        websocket.send("hello")
        assert websocket.recv(WITHIN_S) == f"{PREFIX} hello"
        data = bytes(range(256)) * 4000
        websocket.send(data)
        assert websocket.recv(WITHIN_S) == data[::-1]
        assert websocket.ping().wait(WITHIN_S)
    until(lambda: served.app.events[-1] == "closed 1000")
    until(lambda: not served.listener.crowd.upgraded)


def test_a_message_has_a_bound(served: Mounted) -> None:
    with socket_to(served, max_size=None) as websocket:
        websocket.send(b"x" * MESSAGE_BYTES)
        assert len(websocket.recv(WITHIN_S)) == MESSAGE_BYTES
        with pytest.raises(ConnectionClosed) as caught:
            websocket.send(b"x" * (MESSAGE_BYTES + 1))
            websocket.recv(WITHIN_S)
    # What was still being sent may reset the connection before the reason is read.
    assert caught.value.rcvd is None or caught.value.rcvd.code == 1009
    until(lambda: served.app.events[-1] == "closed 1009")


def test_a_websocket_outlasts_the_time_for_a_head(
    served: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_TIMEOUT_S", "SILENT_S"):
        monkeypatch.setattr(listener, name, 0.1)
    with socket_to(served) as websocket:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            websocket.send("still here")
            assert websocket.recv(WITHIN_S) == f"{PREFIX} still here"


def test_a_websocket_that_nobody_takes_is_an_ordinary_request(served: Mounted) -> None:
    assert refusal(served, "/closed") == (403, b"")  # the application's own refusal
    assert refusal(served, "/nothing")[0] in (403, 404)
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{served.port}/_cloche/other", proxy=None)
    assert caught.value.response.status_code == 403
    assert b"takes a signature" in (caught.value.response.body or b"")
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{served.port}/bucket/key", proxy=None)
    assert b"does not support the service s3" in (caught.value.response.body or b"")
    assert not served.listener.crowd.upgraded


FOREIGN = "http://evil.example"


@pytest.mark.control("The same requests without the header are answered; test_a_websocket_echoes.")
def test_no_foreign_page_reaches_it(served: Mounted) -> None:
    own = f"http://127.0.0.1:{served.port}"
    assert ask(served, f"{PREFIX}/where", origin=own)[0] == 200
    with socket_to(served, origin=own) as websocket:
        websocket.send("x")
        assert websocket.recv(WITHIN_S) == f"{PREFIX} x"
    text = b"The page of 'http://evil.example' may not send this request\n"
    assert ask(served, f"{PREFIX}/where", origin=FOREIGN)[::2] == (403, text)
    assert refusal(served, origin=FOREIGN) == (403, b"")
    named = (
        b"Cloche's own pages are not served under the name 'evil.example'. If it is yours: "
        b"cloche up --host-name NAME\n"
    )
    assert ask(served, f"{PREFIX}/where", host="evil.example")[::2] == (403, named)


NAMES = ("where", "socket")


@pytest.mark.control("At the platform's own port the same requests are answered.")
def test_no_gang_reaches_it(served: Mounted) -> None:
    at_door = Mounted(**(vars(served) | {"port": served.door}))
    for status, body in (ask(at_door, f"{PREFIX}/where")[::2], refusal(at_door)):
        assert status == 403
        said = json.loads(body)["message"]
        assert said in [f"{PREFIX}/{name} is not for jobs and replicas" for name in NAMES]


def test_a_browser_runs_nothing_unless_the_application_says_so(served: Mounted) -> None:
    _, headers, _ = ask(served, f"{PREFIX}/page")
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"
    _, headers, _ = ask(served, f"{PREFIX}/page?own")
    assert headers["content-security-policy"] == "default-src 'self'"
    assert "content-security-policy" not in ask(served, f"{PREFIX}/where")[1]  # JSON runs nothing


def test_a_refusal_before_the_body_closes_the_connection(served: Mounted) -> None:
    """Its bytes would be taken for the next request by who waits for `100 Continue`."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WITHIN_S)
    connection.putrequest("PUT", f"{PREFIX}/refuses")
    connection.putheader("Content-Length", "10")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 403 and answer.headers["connection"] == "close"
    connection.close()


def test_only_so_many_websockets_are_kept(served: Mounted) -> None:
    served.listener.crowd.most_upgraded = 2
    with socket_to(served) as first, socket_to(served):
        assert refusal(served) == (503, b"Service Unavailable")
        assert ask(served, f"{PREFIX}/where")[0] == 200
        first.close()
        until(lambda: len(served.listener.crowd.upgraded) == 1)
        with socket_to(served) as third:
            third.send("x")
            assert third.recv(WITHIN_S) == f"{PREFIX} x"


def test_a_handshake_that_can_not_be_read_is_refused(served: Mounted) -> None:
    long = {"x-long": "x" * 20_000}  # the gateway takes it, the WebSocket's reader does not
    assert refusal(served, additional_headers=long) == (400, b"Bad Request")
    until(lambda: not served.listener.crowd.upgraded)


def test_the_applications_life_is_the_platforms(tmp_path: Path) -> None:
    with mounted(tmp_path) as served:
        assert served.app.events == ["started"]
        websocket = socket_to(served, legacy=True)
        websocket.send("x")
        assert websocket.recv(WITHIN_S) == f"{PREFIX} x"
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv(WITHIN_S)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
    assert served.app.events == ["started", "closed 1012", "ended"]


async def test_an_application_that_can_not_start_is_said() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no table"})

    mounts = Mounts()
    mounts.add("/_cloche/broken", fails)
    with pytest.raises(RuntimeError, match="the application at /_cloche/broken did not start"):
        await mounts.start()
    await mounts.close()


@pytest.mark.parametrize("prefix", ["", "/", "/app", "_app", "/_app/", "/_app//x", "/_app/../x"])
def test_no_prefix_hides_a_bucket(prefix: str) -> None:
    with pytest.raises(
        ValueError, match="is not a prefix for an application, such as /_cloche/app"
    ):
        Mounts().add(prefix, App().build())


def test_a_prefix_is_one_applications() -> None:
    mounts = Mounts()
    mounts.add(PREFIX, App().build())
    with pytest.raises(ValueError, match=f"there is an application at {PREFIX} already"):
        mounts.add(PREFIX, App().build())


def until(condition: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
