"""Workers that answer, break and stall as told: HTTP servers on unix sockets."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cloche.engine import Address
from cloche.replicas.connection import request_head
from cloche.replicas.health import Pinger

PING = request_head("GET", "/ping", 0, ()), b""
Handle = Callable[["Fake", bytes], Awaitable[bytes | None]]
Make = Callable[..., Awaitable["Fake"]]


async def echo(fake: "Fake", body: bytes) -> bytes | None:
    return fake.name.encode() + b":" + body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what fakes do sets no event)
            await asyncio.sleep(0.005)


async def ping(address: Address, timeout_s: float) -> int | None:
    """Return the status of `GET /ping`, asked once."""
    pinger = Pinger(address, PING)
    try:
        return await pinger.ask(timeout_s)
    finally:
        pinger.close()


class Fake:
    """A worker; its `handle` returns the answer's body, or None to break the connection."""

    def __init__(self, name: str, socket: Path, handle: Handle = echo) -> None:
        self.name, self.socket, self.handle = name, socket, handle
        self.seen: list[bytes] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> Address:
        return Address(path=str(self.socket))

    async def start(self) -> "Fake":
        self.server = await asyncio.start_unix_server(self.connection, self.socket)
        return self

    async def die(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.socket.unlink(missing_ok=True)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.seen.append(body)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                answer = await self.handle(self, body)
                self.at_once -= 1
                if answer is None:
                    break
                size = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(size.encode() + answer)
        writer.close()


@asynccontextmanager
async def making() -> AsyncIterator[Make]:
    """Give what makes workers by name; they all end."""
    made: list[Fake] = []
    with tempfile.TemporaryDirectory(prefix="rt") as root:

        async def make(name: str, handle: Handle = echo) -> Fake:
            made.append(await Fake(name, Path(root) / name, handle).start())
            return made[-1]

        yield make
        for fake in made:
            await fake.die()
