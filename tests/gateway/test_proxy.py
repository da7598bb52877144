"""The proxy, with real TLS clients and a local TLS server for the outside."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloche.core.clock import SystemClock
from cloche.gateway import egress
from cloche.gateway.authority import Authority
from cloche.gateway.egress import (
    Destination,
    Egress,
    Fenced,
    Open,
    Upstream,
    UpstreamProxy,
    networks,
    route_of,
    upstream_of,
)
from cloche.gateway.listener import Listener
from cloche.gateway.proxy import Proxy
from cloche.records.secrets import Secrets


async def echo_app(scope, receive, send) -> None:
    """Answers with what was asked, as the gateway would see it."""
    headers = dict(scope["headers"])
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    host = headers.get(b"host", b"").decode()
    text = f"gateway {scope['method']} {scope['scheme']} {host} {scope['path']} {body.decode()}"
    content = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(content)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": content})


def bound() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


@dataclass
class Running:
    port: int
    authority: Authority
    proxy: Proxy


@asynccontextmanager
async def running(folder: Path, policy: Egress) -> AsyncIterator[Running]:
    authority = Authority.open(folder, SystemClock(), Secrets.open(folder / "secrets.db"))
    listener = Listener(echo_app)
    proxy = Proxy(listener, authority, policy)
    listening = bound()
    await proxy.listen(listening)
    try:
        yield Running(listening.getsockname()[1], authority, proxy)
    finally:
        await proxy.close()
        await listener.close()


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[tuple[int, Authority]]:
    """A host of the outside, with an authority of its own."""
    authority = Authority.open(folder, SystemClock(), Secrets.open(folder / "secrets.db"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int(await reader.readline())
        writer.write(await reader.readexactly(size))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(
        answer, "127.0.0.1", 0, ssl=authority.context("outside.test")
    )
    try:
        yield server.sockets[0].getsockname()[1], authority
    finally:
        server.close()


async def nothing_open(proxy: Running) -> None:
    """Return once the proxy has let go of every connection that ended."""
    async with asyncio.timeout(10):
        while proxy.proxy.open:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


async def exchange(port: int, request: str) -> bytes:
    """Send one request and return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    content = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return content


async def tunnel(
    port: int, target: str, name: str, bundle: Path
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a TLS connection to `name` through the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200"), head
    context = ssl.create_default_context(cafile=str(bundle))
    await writer.start_tls(context, server_hostname=name)
    return reader, writer


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("sts.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com"),
        ("api.sagemaker.us-east-1.amazonaws.com", "api.sagemaker.us-east-1.amazonaws.com"),
        # The name in the client's SNI counts, not the one in CONNECT.
        ("sts.amazonaws.com", "my-bucket.s3.amazonaws.com"),
    ],
)
async def test_aws_names_end_at_the_gateway(tmp_path: Path, target: str, name: str) -> None:
    async with running(tmp_path, Open(Upstream())) as proxy:
        reader, writer = await tunnel(proxy.port, f"{target}:443", name, proxy.authority.bundle)
        for word in ("one", "two"):  # on one connection
            request = f"POST /x HTTP/1.1\r\nHost: {name}\r\nContent-Length: 3\r\n\r\n{word}"
            writer.write(request.encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert body.decode() == f"gateway POST https {name} /x {word}"
        writer.close()


async def test_a_client_that_does_not_trust_the_authority_is_not_served(tmp_path: Path) -> None:
    async with running(tmp_path, Open(Upstream())) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"CONNECT sts.amazonaws.com:443 HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(ssl.SSLCertVerificationError):
            await writer.start_tls(
                ssl.create_default_context(), server_hostname="sts.amazonaws.com"
            )


async def test_plain_http_to_an_aws_name_ends_at_the_gateway(tmp_path: Path) -> None:
    async with running(tmp_path, Open(Upstream())) as proxy:
        answer = await exchange(
            proxy.port,
            "GET http://sts.amazonaws.com/?Action=x HTTP/1.1\r\n"
            "Host: sts.amazonaws.com\r\nProxy-Connection: close\r\nConnection: close\r\n\r\n"
            "GET / HTTP/1.0\r\n\r\n",
        )
        assert b"gateway GET http sts.amazonaws.com /" in answer


async def test_other_hosts_are_tunnelled_untouched(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096  # a megabyte, both ways
    async with (
        tls_server(tmp_path / "outside") as (port, outside),
        running(tmp_path / "ours", Open(Upstream())) as proxy,
    ):
        reader, writer = await tunnel(
            proxy.port, f"localhost:{port}", "outside.test", outside.bundle
        )
        writer.write(b"%d\n" % len(content) + content)
        assert await asyncio.wait_for(reader.readexactly(len(content)), 20) == content
        assert await reader.read() == b""
        writer.close()
        await nothing_open(proxy)


async def test_one_side_may_end_before_the_other(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"all of " + await reader.read())  # until the client's end
        writer.close()

    async with running(tmp_path, Open(Upstream())) as proxy:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"it")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"all of it"
        await nothing_open(proxy)
        writer.close()
        server.close()


async def test_plain_http_is_forwarded_with_the_proxys_headers_removed(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        assert await reader.readexactly(4) == b"body"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    async with running(tmp_path, Open(Upstream())) as proxy:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answered = await exchange(
            proxy.port,
            f"POST http://127.0.0.1:{port}/a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Proxy-Authorization: Basic c2VjcmV0\r\nX-Mine: 1\r\nContent-Length: 4\r\n\r\nbody",
        )
        server.close()
    assert answered.endswith(b"ok")
    head = seen[0].decode()
    assert head.startswith("POST /a?b=c HTTP/1.1\r\n")
    assert "X-Mine: 1" in head and "secret" not in head.lower() and "Proxy" not in head


@pytest.mark.parametrize(
    ("request_text", "status", "text"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 400, "it takes CONNECT and http:// URLs, not /"),
        ("CONNECT nowhere HTTP/1.1\r\n\r\n", 400, "nowhere has no valid port"),
        ("CONNECT a:99999 HTTP/1.1\r\n\r\n", 400, "has no valid port"),
        ("rubbish\r\n\r\n", 400, "that was not an HTTP request"),
        ("GET / HTTP/1.1\r\nX: " + "y" * 70000, 400, "longer than 65536 bytes"),
        ("CONNECT no-such-host.invalid:443 HTTP/1.1\r\n\r\n", 502, "no-such-host.invalid has no"),
    ],
)
async def test_what_cannot_be_done_is_said(
    tmp_path: Path, request_text: str, status: int, text: str
) -> None:
    async with running(tmp_path, Open(Upstream())) as proxy:
        answer = (await exchange(proxy.port, request_text)).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert text in answer


async def test_a_host_that_refuses_is_a_bad_gateway(tmp_path: Path) -> None:
    unused = bound()
    port = unused.getsockname()[1]
    async with running(tmp_path, Open(Upstream())) as proxy:
        answer = await exchange(proxy.port, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n")
    unused.close()
    assert answer.startswith(b"HTTP/1.1 502 ") and b"can't be reached" in answer


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[64:ff9b:1::7f00:1]",
        "[64:ff9b:1:7f00:0:100::]",
        "[fec0::1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "0x7f.1",
        "017700000001",
    ],
)
async def test_user_code_does_not_reach_private_addresses(tmp_path: Path, host: str) -> None:
    fenced = Fenced(Upstream(), (), 4599)
    async with running(tmp_path, fenced) as proxy:
        for request in (
            f"CONNECT {host}:8080 HTTP/1.1\r\n\r\n",
            f"GET http://{host}:8080/ HTTP/1.1\r\n\r\n",
        ):
            answer = await exchange(proxy.port, request)
            assert answer.startswith(b"HTTP/1.1 403 "), answer
            assert b"`cloche up --allow-egress CIDR` allows a network" in answer
            # What clients show of an answer to CONNECT.
            phrase = answer.split(b"\r\n", 1)[0].removeprefix(b"HTTP/1.1 403 Forbidden: ").decode()
            address, _, rest = phrase.partition(" is not public, cloche up --allow-egress ")
            assert rest == f"{address} allows it"
            assert ipaddress.ip_network(address)


SPECIAL = (
    *("0.1.2.3", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "240.0.0.1", "255.255.255.255", "239.255.255.250"),
    *("::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::a00:1"),
    *("64:ff9b:1::", "64:ff9b:1:ffff::8.8.8.8", "100::1", "2001::1", "2001:db8::1"),
    # Teredo, benchmarks, ORCHID, 6to4 of a private address, ISATAP, documentation, SRv6.
    *("2001:0:4136:e378::1", "2001:2::1", "2001:10::1", "2002:a00:1::1"),
    *("2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:8.8.8.8", "3fff::1", "5f00::1"),
    *("4000::1", "fc00::1", "fd12::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1"),
)
PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450::1", "2001:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"),
)


@pytest.mark.parametrize("text", SPECIAL)
def test_no_special_address_is_reached_in_any_form(text: str) -> None:
    assert not egress.may_reach(ipaddress.ip_address(text), (), frozenset())


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_reached_unless_they_are_the_machines_own(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert egress.may_reach(address, (), frozenset())
    assert not egress.may_reach(address, (), frozenset((address,)))


def test_what_is_allowed_by_name_is_reached_in_every_form_that_stands_for_it() -> None:
    allowed = networks(["10.0.0.0/8", "fec0::/10", "::1/128"])
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fec0::1", "::1"):
        assert egress.may_reach(ipaddress.ip_address(text), allowed, frozenset())
    assert not egress.may_reach(ipaddress.ip_address("127.0.0.1"), allowed, frozenset())


async def test_of_a_names_several_addresses_only_public_ones_are_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Straight, we choose among them; through the machine's own proxy, it would."""

    async def both(_target: Destination) -> list[egress.Address]:
        return [ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("1.1.1.1")]

    monkeypatch.setattr(egress, "looked_up", both)
    fenced, target = Fenced(Upstream(), (), 4599), Destination("two.example.com", 443)
    assert await fenced.resolve(target, None, straight=True) == [("1.1.1.1", 443)]
    with pytest.raises(egress.ConnectRefused, match=r"10\.1\.2\.3 is not a public address"):
        await fenced.resolve(target, None, straight=False)


async def test_allow_egress_opens_a_network(tmp_path: Path) -> None:
    fenced = Fenced(Upstream(), networks(["127.0.0.0/8"]), 4599)
    async with (
        tls_server(tmp_path / "outside") as (port, outside),
        running(tmp_path / "ours", fenced) as proxy,
    ):
        reader, writer = await tunnel(
            proxy.port, f"127.0.0.1:{port}", "outside.test", outside.bundle
        )
        writer.write(b"4\nping")
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"
        writer.close()


async def test_user_codes_aws_calls_go_to_the_gateway(tmp_path: Path) -> None:
    async with running(tmp_path, Fenced(Upstream(), (), 4599)) as proxy:
        name = "sts.us-east-1.amazonaws.com"
        _, writer = await tunnel(proxy.port, f"{name}:443", name, proxy.authority.bundle)
        writer.close()
        answer = await exchange(
            proxy.port, "GET http://127.0.0.1:4599/x HTTP/1.1\r\nConnection: close\r\n\r\n\r\n"
        )
        assert b"gateway GET http" in answer


async def test_a_name_that_resolves_privately_is_refused_after_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, Fenced(Upstream(), (), 4599)) as proxy:

        async def to_private(_target: Destination) -> list[egress.Address]:
            return [ipaddress.ip_address("10.1.2.3")]

        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        monkeypatch.setattr(egress, "looked_up", to_private)
        writer.write(b"CONNECT rebind.example.com:443 HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert b"403" in answer and b"10.1.2.3 is not a public address" in answer


async def test_the_machines_own_proxy_is_used_for_the_outside(tmp_path: Path) -> None:
    """Two proxies in a row: ours asks the machine's, which tunnels."""
    async with (
        tls_server(tmp_path / "outside") as (port, outside),
        running(tmp_path / "company", Open(Upstream())) as company,
    ):
        upstream = Upstream(
            https=UpstreamProxy("127.0.0.1", company.port, "Basic dTpw"), no_proxy=""
        )
        async with running(tmp_path / "ours", Open(upstream)) as proxy:
            reader, writer = await tunnel(
                proxy.port, f"localhost:{port}", "outside.test", outside.bundle
            )
            writer.write(b"4\nping")
            assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"
            assert len(company.proxy.open) == 1  # the way led through it
            writer.close()
            refused = await exchange(
                proxy.port, "CONNECT no-such-host.invalid:443 HTTP/1.1\r\n\r\n"
            )
            assert b"refused no-such-host.invalid:443: HTTP/1.1 502" in refused


async def test_the_public_proxy_is_open_to_this_machine_alone() -> None:
    target = Destination("127.0.0.1", 80)
    mine = next(str(address) for address in egress.own_addresses() if address.version == 4)
    for client in (None, "127.0.0.1", "::1", "::ffff:127.0.0.1", mine):
        found = await Open(Upstream()).resolve(target, client, straight=True)
        assert found == [("127.0.0.1", 80)]
    with pytest.raises(egress.ConnectRefused, match="other machines to"):
        await Open(Upstream()).resolve(target, "203.0.113.9", straight=True)


def test_proxies_are_read_from_the_environment() -> None:
    upstream = upstream_of(
        {"HTTPS_PROXY": "http://u:p%40@proxy.corp:3128", "no_proxy": ".corp,10.0.0.1"}
    )
    assert upstream.https == UpstreamProxy("proxy.corp", 3128, "Basic dTpwQA==")
    assert upstream.http is None
    assert upstream.route(Destination("x.org", 443), secure=True) == upstream.https
    assert upstream.route(Destination("a.corp", 443), secure=True) is None
    assert upstream.route(Destination("10.0.0.1", 443), secure=True) is None
    with pytest.raises(ValueError, match="is not a proxy that Cloche can use"):
        route_of("socks5://localhost:1080")
