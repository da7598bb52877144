"""A response's head and body leave together."""

import asyncio
import socket
import struct
import sys
from typing import Any

import pytest
import uvloop

from cloche.gateway.listener import HttpConnection, Listener

BODY = b"x" * 1379
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
ROUNDS = 200
DATA_SEGMENTS_IN = 152  # tcpi_data_segs_in's offset in struct tcp_info (linux/tcp.h)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts segments by TCP_INFO")


def segments(client: socket.socket) -> int:
    """Return how many segments with data came, however late they were read."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS_IN + 4)
    return int(struct.unpack_from("=I", info, DATA_SEGMENTS_IN)[0])


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class Bare(HttpConnection):
    """The control: a connection that writes to the transport itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = self.transport.transport  # type: ignore[attr-defined]


async def sent(listener: Listener) -> int:
    """Return in how many segments ROUNDS answers came."""
    listening = socket.create_server(("127.0.0.1", 0))
    await listener.listen(listening)

    def ask() -> int:
        with socket.create_connection(listening.getsockname()) as client:
            for _ in range(ROUNDS):
                client.sendall(REQUEST)
                came = client.recv(65536)
                while not came.endswith(BODY):
                    came += client.recv(65536)
            return segments(client)

    try:
        return await asyncio.to_thread(ask)
    finally:
        await listener.close()


def test_head_and_body_come_in_one_piece() -> None:
    assert uvloop.run(sent(Listener(answer))) == ROUNDS


def test_without_the_cork_they_come_in_two() -> None:
    listener = Listener(answer)
    listener.protocol = lambda: Bare(listener)  # type: ignore[method-assign]
    assert uvloop.run(sent(listener)) == 2 * ROUNDS
