"""Connections that waited in a socket's queue while no server lived: all are answered."""

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted import mounted

from cloche.core.held import BACKLOG, bind
from cloche.gateway import crowd

WAITING = 3 * crowd.SILENT
ASKED = b"GET /_cloche/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def many_files() -> Iterator[None]:
    """As the server, which has a descriptor for each connection."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], 65_536), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def answered(folder: Path) -> int:
    """Return how many of those that came before the server are answered."""
    listening = bind("127.0.0.1", 0)
    waiting = []
    for _ in range(WAITING):
        waiting.append(socket.create_connection(listening.getsockname()))
        waiting[-1].sendall(ASKED)
    with mounted(folder, listening):
        found = [read(connection) for connection in waiting]
    return sum(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in found)


def read(connection: socket.socket) -> bytes:
    connection.settimeout(30)
    with connection, connection.makefile("rb") as file:
        try:
            return file.read()
        except ConnectionResetError:
            return b""


@pytest.mark.usefixtures("many_files")
def test_all_who_waited_are_answered(tmp_path: Path) -> None:
    """Though they are more than may say nothing at once, and come at once: each is read in time."""
    assert WAITING < BACKLOG
    assert answered(tmp_path) == WAITING
