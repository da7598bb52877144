"""Two connections joined: what one side sends, the other gets, no faster than it can take."""

import asyncio
from typing import cast

from cloche.gateway.egress import ConnectRefused, Destination
from cloche.outside import UpstreamProxy

ANSWER_LIMIT = 64 * 1024
ANSWER_TIMEOUT_S = 30.0
STATUS_CHARACTERS = 300


class Pipe(asyncio.Protocol):
    """One end of a joined pair."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.other: Pipe | None = None
        self.ended = False  # this side sends no more
        self.detached = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are asyncio's by behaviour, not by class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass data on."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction goes on until it ends too."""
        self.ended = True
        other = self.other
        if other is None or other.ended or other.transport.is_closing():
            return False  # closes this side, and that the other
        other.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other side once it has what was sent."""
        if self.other is not None and not self.detached:
            self.other.transport.close()

    def pause_writing(self) -> None:
        """Read no more on the other side: this one is slow."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def detach(self) -> None:
        """Leave the transport to another protocol."""
        self.detached = True


class Early(asyncio.Protocol):
    """Keeps what comes before the real protocol is in place."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.changed = asyncio.Event()
        self.closed = False

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.buffer += data
        self.changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that no more will come."""
        self.closed = True
        self.changed.set()

    def taken(self) -> bytes:
        """Return what came, once."""
        content, self.buffer = bytes(self.buffer), bytearray()
        return content

    async def ask_proxy(
        self, transport: asyncio.Transport, target: Destination, route: UpstreamProxy
    ) -> None:
        """Have the machine's own proxy connect us; ConnectRefused with its words if not."""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if route.authorization is not None:
            lines.append(f"Proxy-Authorization: {route.authorization}")
        transport.resume_reading()
        transport.write("\r\n".join([*lines, "", ""]).encode())
        where = f"the proxy {route.host}:{route.port}"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                seen = 0
                while self.buffer.find(b"\r\n\r\n", seen) < 0:
                    if self.closed or len(self.buffer) > ANSWER_LIMIT:
                        transport.abort()
                        why = (
                            "closed the connection to"
                            if self.closed
                            else "sent too long an answer about"
                        )
                        raise ConnectRefused(502, f"{where} {why} {target}")
                    seen = max(0, len(self.buffer) - 3)
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError as error:
            transport.abort()
            raise ConnectRefused(504, f"{where} did not connect to {target}") from error
        transport.pause_reading()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].decode("latin-1")[:STATUS_CHARACTERS]
        if status.split(" ")[1:2] != ["200"]:
            transport.abort()
            raise ConnectRefused(502, f"{where} refused {target}: {status}")
        self.buffer = bytearray(rest)


def join(client: Pipe, upstream: asyncio.Transport, early: Early) -> None:
    """Let data flow both ways between two paused connections until both ends have ended."""
    end = Pipe()
    end.connection_made(upstream)
    end.other, client.other = client, end
    upstream.set_protocol(end)
    if early.buffer:
        client.transport.write(early.taken())
    if early.closed:
        client.transport.close()
        return
    client.transport.resume_reading()
    upstream.resume_reading()
