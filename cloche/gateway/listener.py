"""HTTP on sockets: uvicorn's protocol on our own listening sockets, without uvicorn's server.

The platform listens in several places (its own port, TLS that the proxy ended, each gang's door)
on one event loop; uvicorn's `Server` knows one.
"""

import asyncio
import contextlib
import logging
import socket
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

logger = logging.getLogger("cloche.gateway")
# Longer than the SDKs keep an idle connection, so that they are the ones to close it: a request
# sent as the server closes is lost.
KEEP_ALIVE_S = 600
BACKLOG = 2048


class Listener:
    """Answers HTTP with one ASGI app on any number of sockets."""

    def __init__(self, app: Any) -> None:
        self.config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self.config.load()
        self.state = ServerState()
        self.servers: list[asyncio.Server] = []
        self.dates: asyncio.Task[None] | None = None

    def protocol(self) -> HttpToolsProtocol:
        """Return a new connection's protocol; for transports that another party accepted."""
        if self.dates is None:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            self.dates = asyncio.get_running_loop().create_task(self._keep_date())
        return HttpToolsProtocol(config=self.config, server_state=self.state, app_state={})

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
