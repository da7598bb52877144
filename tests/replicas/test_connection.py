"""How a worker is reached."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from fake_workers import Fake, ping

from cloche.engine import Address
from cloche.replicas.connection import connect, request_head
from cloche.replicas.pool import NotDelivered


async def test_long_socket_paths_and_pings(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    long = Address(path=str(folder / "socket"))
    assert await ping(long, 1.0) is None
    with tempfile.TemporaryDirectory(prefix="rt") as short:
        fake = await Fake("one", Path(short) / "socket").start()
        (Path(short) / "socket").rename(long.path)
        assert await ping(long, 1.0) == 200
        connection = await connect(long, 1000)
        head = request_head("POST", "/invocations", 1, [])
        assert (await connection.send((head, b"x"))).body == b"one:x"
        connection.close()
        await fake.die()


async def test_worker_at_a_hosts_port(tmp_path: Path) -> None:
    fake = Fake("one", tmp_path / "unused")
    server = await asyncio.start_server(fake.connection, "127.0.0.1", 0)
    address = Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    connection = await connect(address, 1000)
    head = request_head("POST", "/invocations", 1, [])
    assert (await connection.send((head, b"x"))).body == b"one:x"
    connection.close()
    server.close()
    with pytest.raises(NotDelivered):
        await connect(address, 1000)


@pytest.mark.parametrize("value", ["a\r\nInjected: b", "a\nInjected: b"])
def test_value_of_a_header_makes_no_line(value: str) -> None:
    head = request_head("POST", "/invocations", 0, [("X-A", value)]).decode()
    assert [line for line in head.split("\r\n") if line.startswith("Injected")] == []
    assert "\n" not in head.replace("\r\n", "")
