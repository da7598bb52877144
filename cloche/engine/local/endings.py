"""Tells of processes that ended, as soon as they have.

Each supervisor says it by a connection that is kept, and its death by the connection's end. Those
of the release before this one can't: their records are looked at twice a second.
"""

import logging
import queue
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloche.engine import EngineError
from cloche.engine.local.control import connected
from cloche.engine.local.runs import await_end, held, read_record

logger = logging.getLogger("cloche.engine")
WATCHED_FROM = 2  # the first version whose supervisors know the message `watch`
LOOK_S = 0.5  # between two looks at the records of others


@dataclass(slots=True)
class Gang:
    """One whose processes run; `ended`: how many had ended at the last look."""

    name: str
    folder: Path
    ended: int = 0


class Endings:
    """A thread that hears of every gang that it was told to watch."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.new: queue.SimpleQueue[Gang | None] = queue.SimpleQueue()
        self.selector = selectors.DefaultSelector()
        self.bell, self.woken = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.older: list[Gang] = []
        self.thread = threading.Thread(target=self._run, name="endings", daemon=True)
        self.thread.start()

    def watch(self, gang: str, folder: Path) -> None:
        """Tell of this gang's processes from now on, and of those that have ended by now."""
        self.new.put(Gang(gang, folder))
        self.bell.send(b"\0")

    def close(self) -> None:
        """Tell no more."""
        self.new.put(None)
        self.bell.send(b"\0")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self.selector.close()
        self.bell.close()

    def _run(self) -> None:
        while True:
            for key, _ in self.selector.select(LOOK_S if self.older else None):
                assert isinstance(key.fileobj, socket.socket)
                if key.data is not None:
                    self._heard(key.fileobj, key.data)
                    continue
                self.woken.recv(4096)
                while not self.new.empty():
                    if (gang := self.new.get()) is None:
                        return
                    self._begin(gang)
            self.older = [gang for gang in self.older if self._look(gang)]

    def _begin(self, gang: Gang) -> None:
        """Ask a gang's supervisor to tell."""
        state = read_record(gang.folder / "state.json")
        if state is None:
            return  # it was forgotten
        if state.get("version", 1) < WATCHED_FROM:
            self.older.append(gang)
            return
        try:
            connection = connected(gang.folder)
        except OSError:
            self._gone(gang)
            return
        with suppress(OSError):  # then its end is heard
            connection.sendall(b"watch")
        self.selector.register(connection, selectors.EVENT_READ, gang)

    def _heard(self, connection: socket.socket, gang: Gang) -> None:
        with suppress(OSError):
            if connection.recv(4096):
                self._tell(gang)
                return
        self.selector.unregister(connection)
        connection.close()
        self._gone(gang)

    def _gone(self, gang: Gang) -> None:
        """Tell of a gang whose supervisor has ended, however that was."""
        with suppress(EngineError):
            await_end(gang.folder)
        self._tell(gang)

    def _look(self, gang: Gang) -> bool:
        """Look at the records of a gang; False: nothing is to come."""
        alive = held(gang.folder)
        ended = sum(1 for _ in gang.folder.glob("exit-*.json"))
        if ended != gang.ended or not alive:
            gang.ended = ended
            self._tell(gang)
        return alive

    def _tell(self, gang: Gang) -> None:
        try:
            self.tell(gang.name)
        except Exception:
            logger.exception("%s: nobody heard that it ended", gang.name)
