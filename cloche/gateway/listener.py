"""HTTP on sockets: uvicorn's protocol on our own listening sockets, without uvicorn's server.

The platform listens in several places (its own port, TLS that the proxy ended, each gang's door)
on one event loop; uvicorn's `Server` knows one.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cloche.core.held import BACKLOG
from cloche.gateway.corked import Corked
from cloche.gateway.crowd import Crowd
from cloche.gateway.limits import (
    CHUNK_FRAME_BYTES,
    HEAD_BYTES,
    HEAD_TIMEOUT_S,
    HEADERS,
    LINGER_BYTES,
    LINGER_S,
    MESSAGE_BYTES,
    PING_S,
    SILENT_S,
)
from cloche.gateway.mounted_apps import Mounts

logger = logging.getLogger("cloche.gateway")
# uvicorn says a line for each request that is no HTTP: anybody could fill the disk with them.
protocol_logger = logging.getLogger("cloche.gateway.http")
protocol_logger.setLevel(logging.ERROR)
# Longer than the SDKs keep an idle connection, so that they are the ones to close it: a request
# sent as the server closes is lost.
KEEP_ALIVE_S = 600
REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Listener:
    """Answers HTTP with one ASGI app on any number of sockets."""

    def __init__(self, app: Any, crowd: Crowd | None = None, mounts: Mounts | None = None) -> None:
        """mounts: the applications of `app` that take WebSockets; all else takes none."""
        self.mounts = Mounts() if mounts is None else mounts
        self.config = uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio" if self.mounts.mounts else "none",
            ws_max_size=MESSAGE_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self.config.load()
        self.state = ServerState()
        self.crowd = Crowd() if crowd is None else crowd
        self.servers: list[asyncio.Server] = []
        self.dates: asyncio.Task[None] | None = None

    def protocol(self) -> "HttpConnection":
        """Return a new connection's protocol; for transports that another party accepted."""
        if self.dates is None:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            self.dates = asyncio.get_running_loop().create_task(self._keep_date())
        return HttpConnection(self)

    async def listen(self, listening: socket.socket) -> None:
        """Accept connections of a bound socket until `close`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.protocol, sock=listening, backlog=BACKLOG)
        self.servers.append(server)

    async def close(self, grace_s: float = 5.0) -> None:
        """Accept no more, let requests under way end within the grace, then cut them off."""
        for server in self.servers:
            server.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        if self.state.tasks:
            _, late = await asyncio.wait(set(self.state.tasks), timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                logger.warning("%d requests were cut off", len(late))
                await asyncio.wait(late, timeout=1.0)
        for connection in list(self.state.connections):
            connection.transport.abort()
        if self.dates is not None:
            self.dates.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.dates

    async def _keep_date(self) -> None:
        while True:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)


class HeadTooLarge(Exception):
    """A head beyond its bounds; the parser passes it on as an error of its own."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol with bounds: of a head's size and time, of what frames a body.

    httptools and uvicorn gather a head and a trailer without any, in time quadratic in its size.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__(config=listener.config, server_state=listener.state, app_state={})
        self.logger = protocol_logger
        self.crowd = listener.crowd
        self.mounts = listener.mounts
        self.ws_protocol_class = cast(Any, self._websocket)
        self.deadline: asyncio.TimerHandle | None = None
        self.overhead = 0  # bytes of this message that are not its body
        self.allowed = HEAD_BYTES
        self.heading = False  # a head has begun and has not ended
        self.refused = False
        self.socket: Any = None  # the WebSocket's protocol, once it is one

    # ------------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, not for ever and not among too many that wait."""
        corked = Corked(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(cast(asyncio.Transport, corked))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.app_state["tls"] = (tls.version() or "").removeprefix("TLSv")
        self.deadline = self.loop.call_later(SILENT_S, self._late)
        self.crowd.arrived(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._in_time()
        self.crowd.left(self)
        super().connection_lost(error)

    def abort(self) -> None:
        """Close at once: the crowd needs the place."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse, as much as the bounds allow."""
        if self.refused:
            self.overhead += len(data)
            if self.overhead > LINGER_BYTES:
                self.transport.abort()
            return
        if len(data) <= HEAD_BYTES:
            self._feed(data)
            return
        for at in range(0, len(data), HEAD_BYTES):
            self._feed(data[at : at + HEAD_BYTES])

    def _feed(self, data: bytes) -> None:
        if self.refused or self.parser is None or self.socket or self.transport.is_closing():
            return
        self.overhead += len(data)
        super().data_received(data)
        if self.refused or self.socket or self.transport.is_closing():
            return
        if self.overhead > self.allowed:
            self._refuse(431)
        elif self.deadline is None and not self.under_way:
            self.deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._late)

    @property
    def under_way(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _late(self) -> None:
        self.deadline = None
        if self.heading:
            self._refuse(408)
        else:
            self.transport.close()

    def _in_time(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or is too large."""
        self._refuse(431 if self.overhead > HEAD_BYTES else 400)

    def _refuse(self, status: int) -> None:
        """Answer, and read no more of it; a client that still sends gets to see the answer."""
        self.refused = True
        self._in_time()
        if self.under_way:
            self.transport.abort()
            return
        text = REASONS[status].encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (status, text, len(text), text)
        )
        self.deadline = self.loop.call_later(LINGER_S, self.transport.close)
        self.crowd.waits(self)

    # ------------------------------------------------------------------ WebSockets

    def _should_upgrade(self) -> bool:
        """Return whether the request's Upgrade is obeyed: by applications that are mounted."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        return (
            self.mounts.find(path) is not None
            and self.parser.get_method() == b"GET"
            and super()._should_upgrade()
        )

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless there are too many that are kept open so."""
        if not self.crowd.upgrade(self):
            self._refuse(503)
            return
        super().handle_websocket_upgrade()
        if not self.socket.handshake_initiated:  # a head that it could not read: it says nothing
            self._refuse(400)

    def _websocket(self, **state: Any) -> "Upgraded":
        self.socket = cast(Any, self.config.ws_protocol_class)(**state)
        return Upgraded(self.socket, lambda: self.crowd.left(self))

    # ------------------------------------------------------------------ what the parser calls

    def on_message_begin(self) -> None:
        """Begin a head."""
        self.heading = True
        self.allowed = HEAD_BYTES
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the body (a trailer of HTTP) is none of the request."""
        if not self.heading:
            return
        if len(self.headers) >= HEADERS:
            self.overhead += HEAD_BYTES
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request on, if its head is within bounds."""
        self.heading = False
        self._in_time()
        self.crowd.busy(self)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES:
            self.overhead += HEAD_BYTES
            raise HeadTooLarge
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Allow for the frame of one more chunk."""
        self.allowed += CHUNK_FRAME_BYTES

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self.overhead = max(0, self.overhead - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self.overhead = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None and not self.transport.is_closing():
            self.crowd.waits(self)


class Upgraded:
    """Stands for the protocol of a WebSocket; tells when its connection is lost."""

    def __init__(self, protocol: asyncio.Protocol, lost: Callable[[], None]) -> None:
        self.protocol, self.lost = protocol, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.protocol, name)

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self.lost()
        self.protocol.connection_lost(error)
