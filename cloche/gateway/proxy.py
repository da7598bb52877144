"""The HTTPS proxy: AWS's host names end here, every other host is passed on.

CONNECT to `*.amazonaws.com:443` ends TLS with a certificate of the local authority and goes to the
gateway; plain HTTP for such a host goes there too. Other hosts are tunnelled untouched, where the
`Egress` of the listening socket allows it. One connection carries one tunnel or one forwarded
request.
"""

import asyncio
import logging
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloche.core import executors
from cloche.core.held import BACKLOG
from cloche.gateway.authority import Authority
from cloche.gateway.crowd import Crowd
from cloche.gateway.egress import ConnectRefused, Destination, Egress
from cloche.gateway.listener import Listener
from cloche.gateway.pipe import Early, Pipe, join

logger = logging.getLogger("cloche.gateway.proxy")
HEAD_LIMIT = 64 * 1024
HOST_CHARACTERS = 255
SHOWN_CHARACTERS = 300  # of what a refusal repeats
HEAD_TIMEOUT_S, CONNECT_TIMEOUT_S, TLS_TIMEOUT_S = 60.0, 15.0, 30.0
AWS_NAME = re.compile(r"(.+\.)?amazonaws\.com\.?", re.IGNORECASE)
# These say how to talk to the proxy, not to the host behind it (RFC 9110, 7.6.1).
HOP_HEADERS = (b"proxy-connection", b"proxy-authorization", b"connection", b"keep-alive")
REASONS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 504: "Gateway Timeout"}


@dataclass(frozen=True, slots=True)
class Head:
    """A request's first line and headers, as sent; `rest` came after them."""

    method: str
    target: str
    version: str
    headers: tuple[bytes, ...]  # lines
    rest: bytes


class Proxy:
    """Speaks proxy on any number of sockets: AWS's hosts go to `gateway`, others out.

    Without a gateway AWS's hosts are like others.
    """

    def __init__(
        self,
        gateway: Listener | None,
        authority: Authority | None,
        egress: Egress,
        crowd: Crowd | None = None,
    ) -> None:
        self.gateway, self.authority, self.egress = gateway, authority, egress
        self.crowd = Crowd() if crowd is None else crowd
        self.servers: list[asyncio.Server] = []
        self.open: set[asyncio.Transport] = set()  # clients'; the other ends close with them
        self.tasks: set[asyncio.Task[None]] = set()

    async def listen(self, listening: socket.socket) -> None:
        """Accept connections of a bound socket until `close`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ProxyConnection(self), sock=listening, backlog=BACKLOG
        )
        self.servers.append(server)

    async def close(self) -> None:
        """Accept no more and cut every tunnel; the gateway's own close ends what it serves."""
        for server in self.servers:
            server.close()
        for task in list(self.tasks):
            task.cancel()
        for transport in list(self.open):
            transport.abort()

    def start(self, connection: "ProxyConnection") -> None:
        """Serve a connection on a task of its own."""
        task = asyncio.get_running_loop().create_task(self.serve(connection))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, connection: "ProxyConnection") -> None:
        """Read what the client wants, and connect it; answers 4xx or 5xx with a text if not."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                head = await connection.head()
            if head is None:
                connection.transport.close()
            elif head.method == "CONNECT":
                await self._connect(connection, head)
            else:
                await self._forward(connection, head)
        except ConnectRefused as refused:
            connection.refuse(refused.status, str(refused), refused.phrase)
        except ValueError as error:
            connection.refuse(400, f"The request's target is not an address: {error}")
        except TimeoutError:
            connection.transport.abort()
        except OSError as error:
            logger.debug("a proxied connection ended: %s", error)
            connection.transport.abort()

    def _is_ours(self, target: Destination) -> bool:
        return self.gateway is not None and AWS_NAME.fullmatch(target.host) is not None

    async def _connect(self, connection: "ProxyConnection", head: Head) -> None:
        target = authority_form(head.target)
        if target.port == 443 and self._is_ours(target):
            connection.transport.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            await self._end_tls(connection, target.host, head.rest)
            return
        upstream, early = await self._reach(connection, target)
        connection.transport.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        if head.rest:
            upstream.write(head.rest)
        join(connection, upstream, early)

    async def _forward(self, connection: "ProxyConnection", head: Head) -> None:
        url = urlsplit(head.target)
        if url.scheme != "http" or not url.hostname:
            raise ConnectRefused(
                400,
                "This is an HTTP proxy: it takes CONNECT and http:// URLs, not "
                f"{head.target[:SHOWN_CHARACTERS]}",
            )
        target = Destination(short(url.hostname), port_of(url.netloc, 80))
        path = url.path or "/"
        origin = f"{path}?{url.query}" if url.query else path
        if self._is_ours(target) or self.egress.is_platform(target):
            self._hand_over(connection, rewritten(head, origin))
            return
        route = self.egress.upstream_for(target, secure=False)
        authorization = route.authorization if route is not None else None
        asked = head.target if route is not None else origin
        content = rewritten(head, asked, authorization)
        upstream, early = await self._reach(connection, target, secure=False)
        upstream.write(content)
        join(connection, upstream, early)

    async def _reach(
        self, connection: "ProxyConnection", target: Destination, *, secure: bool = True
    ) -> tuple[asyncio.Transport, Early]:
        """Return a connection to the target, straight or through the machine's own proxy."""
        peer = connection.transport.get_extra_info("peername")
        route = self.egress.upstream_for(target, secure=secure)
        client = peer[0] if peer else None
        addresses = await self.egress.resolve(target, client, straight=route is None)
        where = [(route.host, route.port)] if route is not None else addresses
        upstream, early = await first_to_answer(target, where)
        if route is not None and secure:
            await early.ask_proxy(upstream, target, route)
        return upstream, early

    async def _end_tls(self, connection: "ProxyConnection", host: str, rest: bytes) -> None:
        """Speak TLS as `host` on the connection and let the gateway answer what comes."""
        if rest:
            raise ConnectRefused(400, "The client sent data before the tunnel was established")
        assert self.authority is not None
        loop = asyncio.get_running_loop()
        context = await executors.CERTIFICATES.run(self.authority.context, host.rstrip("."))
        early = Early()
        connection.detach()
        try:
            tls = await loop.start_tls(
                connection.transport,
                early,
                context,
                server_side=True,
                ssl_handshake_timeout=TLS_TIMEOUT_S,
            )
        except (OSError, asyncio.CancelledError):
            # Mostly a client that does not trust our authority: it says so on its side.
            connection.transport.abort()
            return
        finally:
            self.crowd.left(connection)
        if tls is not None:
            self._to_gateway(tls, early.taken())

    def _hand_over(self, connection: "ProxyConnection", content: bytes) -> None:
        connection.detach()
        self.crowd.left(connection)
        self._to_gateway(connection.transport, content)
        connection.transport.resume_reading()

    def _to_gateway(self, transport: asyncio.Transport, content: bytes) -> None:
        assert self.gateway is not None
        protocol = self.gateway.protocol()
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        if content:
            protocol.data_received(content)


class ProxyConnection(Pipe):
    """One client's connection, until what it asks for is connected."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.proxy = proxy
        self.buffer = bytearray()
        self.complete: asyncio.Future[Head | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        super().connection_made(transport)
        self.proxy.open.add(self.transport)
        self.proxy.crowd.arrived(self)
        self.proxy.start(self)

    def data_received(self, data: bytes) -> None:
        """Gather the head; afterwards pass data on."""
        if self.complete.done():
            super().data_received(data)
            return
        seen = max(0, len(self.buffer) - 3)
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n", seen)
        if end < 0 and len(self.buffer) <= HEAD_LIMIT:
            return
        self.transport.pause_reading()
        self.proxy.crowd.busy(self)
        try:
            if not 0 <= end <= HEAD_LIMIT:
                raise ConnectRefused(400, f"The request's head is longer than {HEAD_LIMIT} bytes")
            self.complete.set_result(parsed(bytes(self.buffer), end))
        except ConnectRefused as refused:
            self.complete.set_exception(refused)

    def eof_received(self) -> bool:
        """Pass the end on, or give up a head that will not come."""
        if not self.complete.done():
            self.complete.set_result(None)
            return False
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other side."""
        if not self.complete.done():
            self.complete.set_result(None)
        self.proxy.open.discard(self.transport)
        self.proxy.crowd.left(self)
        super().connection_lost(error)

    def abort(self) -> None:
        """Close at once: the crowd needs the place."""
        self.transport.abort()

    def detach(self) -> None:
        """Leave the connection to the gateway, which ends it when the time comes."""
        super().detach()
        self.proxy.open.discard(self.transport)

    async def head(self) -> Head | None:
        """Return the request's head; None when the client went."""
        return await self.complete

    def refuse(self, status: int, message: str, phrase: str = "") -> None:
        """Answer with an error whose body says why, and close."""
        body = f"{message}\n".encode()
        self.transport.write(
            f"HTTP/1.1 {status} {phrase or REASONS[status]}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()


async def first_to_answer(
    target: Destination, addresses: list[tuple[str, int]]
) -> tuple[asyncio.Transport, Early]:
    """Return a connection to the first address that takes one."""
    loop = asyncio.get_running_loop()
    last: Exception | None = None
    for host, port in addresses:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, early = await loop.create_connection(Early, host, port)
            transport.pause_reading()
            return transport, early
        except (OSError, TimeoutError) as error:
            last = error
    if isinstance(last, TimeoutError):
        raise ConnectRefused(504, f"{target} did not answer within {CONNECT_TIMEOUT_S:.0f} seconds")
    raise ConnectRefused(502, f"{target} can't be reached: {last}")


def parsed(content: bytes, end: int) -> Head:
    """Return the head of a request that ends at `end`; ConnectRefused when it is none."""
    first, *headers = content[:end].split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        raise ConnectRefused(400, "This is an HTTP proxy, and that was not an HTTP request")
    try:
        method, target, version = (part.decode("ascii") for part in parts)
    except UnicodeDecodeError as error:
        raise ConnectRefused(400, "A request's first line is ASCII") from error
    return Head(method, target, version, tuple(headers), content[end + 4 :])


def rewritten(head: Head, target: str, authorization: str | None = None) -> bytes:
    """Return the request as the host behind the proxy is to see it."""
    kept = [
        line for line in head.headers if line.split(b":", 1)[0].strip().lower() not in HOP_HEADERS
    ]
    # The next request on this connection may be for another host.
    kept.append(b"Connection: close")
    if authorization is not None:
        kept.append(f"Proxy-Authorization: {authorization}".encode())
    first = f"{head.method} {target} {head.version}".encode()
    return b"\r\n".join([first, *kept, b"", b""]) + head.rest


def authority_form(text: str) -> Destination:
    """Return host and port of a CONNECT."""
    host = urlsplit(f"//{text}").hostname
    if not host:
        raise ConnectRefused(400, f"CONNECT takes HOST:PORT, not {text[:SHOWN_CHARACTERS]}")
    return Destination(short(host), port_of(text, None))


def short(host: str) -> str:
    """Return a host's name; ConnectRefused when it is longer than any name is."""
    if len(host) > HOST_CHARACTERS:
        raise ConnectRefused(400, f"A host's name has {HOST_CHARACTERS} characters at most")
    return host


def port_of(netloc: str, default: int | None) -> int:
    """Return the port of `host:port`; ConnectRefused when it is none."""
    try:
        port = urlsplit(f"//{netloc}").port
    except ValueError:
        port = 0
    port = default if port is None else port
    if not port:
        raise ConnectRefused(400, f"{netloc[:SHOWN_CHARACTERS]} has no valid port")
    return port
