"""Asking supervisors, by the sockets in their run directories (`supervisor/control.py`)."""

import socket
from pathlib import Path

from cloche.core.unix import short_path
from cloche.engine.local.runs import ANSWER_WITHIN_S


def connected(folder: Path) -> socket.socket:
    """Return a connection to the supervisor of a run directory; OSError when it has none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_WITHIN_S)
    try:
        with short_path(folder) as short:
            connection.connect(f"{short}/control")
    except BaseException:
        connection.close()
        raise
    return connection


def ask(folder: Path, request: bytes) -> list[int]:
    """Ask a supervisor; return the descriptors that it sends, if it lives."""
    try:
        with connected(folder) as connection:
            connection.sendall(request)
            return socket.recv_fds(connection, 16, 2)[1]
    except (FileNotFoundError, NotADirectoryError, ConnectionError):
        return []  # there is none, or it was just ending
