"""A supervisor's socket, by which an engine asks it: one request a connection.

`ping` is answered with "ok", `stop` too, `doors` with "ok" and the descriptors of the gang's doors.
At `watch` the connection is kept, and says "ended" whenever the record of a process is written.
What is not known is answered with "unknown". `version.py` has the version of these messages.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "control"
ASKED_WITHIN_S = 1.0
WATCHERS = 8  # that are told of endings: a server, and those before it that died


class Control:
    """The socket, in the run directory."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(PATH)
        os.chmod(PATH, 0o600)
        self.socket.listen(64)
        self.socket.setblocking(False)
        self.watchers: list[socket.socket] = []

    def answer(self, doors: Sequence[socket.socket], *, some_ended: bool) -> bytes:
        """Serve one request and return it; a caller that went away is none of our business."""
        try:
            connection, _ = self.socket.accept()
        except OSError:
            return b""
        request = b""
        connection.settimeout(ASKED_WITHIN_S)
        try:
            request = connection.recv(64)
            if request == b"watch":
                self.watch(connection, some_ended=some_ended)
                return request
            if request == b"doors":
                socket.send_fds(connection, [b"ok"], [door.fileno() for door in doors])
            else:
                connection.sendall(b"ok" if request in (b"ping", b"stop") else b"unknown")
        except OSError:
            pass
        connection.close()
        return request

    def watch(self, watcher: socket.socket, *, some_ended: bool) -> None:
        """Tell somebody of endings; at once, if there were some."""
        watcher.setblocking(False)
        self.watchers.append(watcher)
        for gone in self.watchers[:-WATCHERS]:
            gone.close()
        del self.watchers[:-WATCHERS]
        if some_ended:
            self.tell()

    def tell(self) -> None:
        """Say that a process has ended; who does not listen any more is let go."""
        for watcher in list(self.watchers):
            try:
                watcher.send(b"ended\n")
            except BlockingIOError:
                continue  # it has more to read than it can have missed
            except OSError:
                self.watchers.remove(watcher)
                watcher.close()
