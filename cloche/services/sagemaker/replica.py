"""A small HTTP/1.1 client for a replica's unix socket: one exchange at a time, connection kept.

httptools parses (the gateway needs it anyway). An invocation costs the whole router 0.2 ms of CPU.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools

SOCKET = "serve.sock"
MAX_ANSWER = 6_291_456  # bytes of a body (InvokeEndpoint's BodyBlob)
PATH_LIMIT = 100  # a unix socket's path takes 107 bytes on Linux, 103 on macOS


class NotDelivered(Exception):
    """The replica can't be reached: it never saw the request."""


class Broken(Exception):
    """The connection broke after the request was sent and before its answer was complete."""


class TooLarge(Exception):
    """The answer is longer than MAX_ANSWER; the rest of it was not read."""


@dataclass(frozen=True, slots=True)
class Response:
    """A replica's answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection to a replica."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.pending: asyncio.Future[Response] | None = None
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.transport is None or self.transport.is_closing()

    def send(self, request: bytes, body: bytes) -> asyncio.Future[Response]:
        """Send a request; the future has the answer, or Broken, or TooLarge.

        Raises NotDelivered when the connection is closed.
        """
        if self.transport is None or self.transport.is_closing():
            raise NotDelivered
        self.pending = asyncio.get_running_loop().create_future()
        self.headers, self.body, self.size = {}, [], 0
        self.transport.writelines((request, body))
        return self.pending

    def close(self) -> None:
        """Close; an exchange under way is broken."""
        if self.transport is not None:
            self.transport.close()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Parse."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell whoever waits."""
        self.transport = None
        if self.pending is not None and not self.pending.done():
            self.pending.set_exception(Broken())

    # what httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body, as long as it is not too long."""
        self.size += len(body)
        if self.size <= MAX_ANSWER:
            self.body.append(body)
        elif self.pending is not None and not self.pending.done():
            self.pending.set_exception(TooLarge())
            self.close()

    def on_message_complete(self) -> None:
        """Answer whoever waits."""
        response = Response(self.parser.get_status_code(), self.headers, b"".join(self.body))
        if not self.parser.should_keep_alive():
            self.close()
        if self.pending is not None and not self.pending.done():
            self.pending.set_result(response)


async def connect(folder: Path) -> Connection:
    """Connect to the socket in a replica's folder; NotDelivered when nobody listens."""
    loop = asyncio.get_running_loop()
    path = str(folder / SOCKET)
    descriptor = None
    try:
        if len(os.fsencode(path)) > PATH_LIMIT:  # reach it through the folder's descriptor
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            path = f"/proc/self/fd/{descriptor}/{SOCKET}"
        _, connection = await loop.create_unix_connection(Connection, path)
    except OSError as error:
        raise NotDelivered(str(error)) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return connection


def request_head(method: str, path: str, length: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request; values go out as sent, without line breaks."""
    lines = [f"{method} {path} HTTP/1.1", "Host: model", f"Content-Length: {length}"]
    for name, value in headers:
        lines.append(f"{name}: {value}".replace("\r", " ").replace("\n", " "))
    lines += ["", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")


PING = request_head("GET", "/ping", 0, [("Connection", "close")])


async def ping(folder: Path, timeout_s: float) -> int | None:
    """Return the status of `GET /ping`; None when there is no answer within the time."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await connect(folder)
            return (await connection.send(PING, b"")).status
    except (NotDelivered, Broken, TimeoutError):
        return None
    finally:
        if connection is not None:
            connection.close()
