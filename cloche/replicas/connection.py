"""A small HTTP/1.1 client for a worker's socket: one exchange at a time, connection kept.

httptools parses (the gateway needs it anyway).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools

from cloche.core.unix import short_path
from cloche.engine import Address
from cloche.replicas.pool import Broken, NotDelivered, ReplyTooLarge

# What is not body: status line, headers, interim answers, chunk extensions, trailers. A worker is
# not trusted, and the parser keeps a header until it is whole.
MAX_HEAD = 65_536
MAX_HEADERS = 200
CHUNK_FRAME = 32  # bytes that each chunk may have beside that
MAX_CHUNKS = 65_536  # each costs the event loop time

HttpRequest = tuple[bytes, bytes]  # head and body


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A worker's answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class WorkerConnection(asyncio.Protocol):
    """One connection to a worker; whatever comes, it keeps no more than its bounds.

    longest: bytes of a reply's body.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.pending: asyncio.Future[HttpReply] | None = None
        self.lost: Callable[[], None] | None = None  # called when the worker ends it
        self.begin()

    def begin(self) -> None:
        """Forget the last exchange."""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.received = self.named = self.chunks = 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.transport is None or self.transport.is_closing()

    @property
    def asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return self.pending is not None and not self.pending.done()

    def send(self, request: HttpRequest) -> asyncio.Future[HttpReply]:
        """Send a request; the future has the answer, or Broken, or ReplyTooLarge.

        Raises NotDelivered when the connection is closed.
        """
        if self.transport is None or self.transport.is_closing():
            raise NotDelivered
        self.pending = asyncio.get_running_loop().create_future()
        self.begin()
        self.transport.writelines(request)
        return self.pending

    def close(self) -> None:
        """Close; an exchange under way is broken, and what was not sent yet is dropped."""
        self.lost = None
        if self.transport is not None:
            self.transport.abort()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Parse, a piece at a time; close at what nobody asked for, or what is too much."""
        for start in range(0, len(data), MAX_HEAD):
            if not self.asked:
                self.close()
                return
            piece = data[start : start + MAX_HEAD]
            self.received += len(piece)
            try:
                self.parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self.close()
                return
            beside = self.received - len(self.body)
            if self.asked and beside > MAX_HEAD + CHUNK_FRAME * self.chunks:
                self.close()
                return

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell whoever waits."""
        self.transport = None
        if self.pending is not None and not self.pending.done():
            self.pending.set_exception(Broken())
        if self.lost is not None:
            self.lost()

    # what httptools calls; what is raised here it raises as an HttpParserError

    def on_message_begin(self) -> None:
        """Refuse an answer that nobody asked for."""
        if not self.asked:
            raise Broken

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self.named += 1
        if self.named > MAX_HEADERS:
            raise Broken
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self.chunks += 1
        if self.chunks > MAX_CHUNKS:
            raise Broken

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body, as long as it is not too long."""
        if self.pending is None or self.pending.done():
            return
        if len(self.body) + len(body) > self.longest:
            self.pending.set_exception(ReplyTooLarge())
            self.close()
        else:
            self.body += body

    def on_message_complete(self) -> None:
        """Answer whoever waits; an interim answer (1xx) is none."""
        status = self.parser.get_status_code()
        if status < 200:
            self.headers = {}
            return
        response = HttpReply(status, self.headers, bytes(self.body))
        if not self.parser.should_keep_alive():
            self.close()
        if self.pending is not None and not self.pending.done():
            self.pending.set_result(response)


async def connect(address: Address, longest: int) -> WorkerConnection:
    """Connect to a worker; NotDelivered when nobody listens."""
    loop = asyncio.get_running_loop()

    def made() -> WorkerConnection:
        return WorkerConnection(longest)

    try:
        if address.path:
            path = Path(address.path)
            with short_path(path.parent) as folder:
                _, connection = await loop.create_unix_connection(made, f"{folder}/{path.name}")
        else:
            _, connection = await loop.create_connection(made, address.host, address.port)
    except OSError as error:
        raise NotDelivered(str(error)) from error
    return connection


def request_head(method: str, path: str, length: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request; values go out as sent, without line breaks."""
    lines = [f"{method} {path} HTTP/1.1", "Host: model", f"Content-Length: {length}"]
    for name, value in headers:
        lines.append(f"{name}: {value}".replace("\r", " ").replace("\n", " "))
    lines += ["", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")
