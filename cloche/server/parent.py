"""The parent: holds the home folder's lock and the listening sockets while servers come and go.

It stays small and does little, so that nothing of it fails: a connection that comes while no server
lives waits in the socket's queue. It reads no request, no record and nothing that a sandbox writes.
"""

import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from cloche.server import log
from cloche.server.restarts import ASKING, Deaths, ServerExit

logger = logging.getLogger("cloche.server")
SETTINGS = "CLOCHE_SERVER"
SERVER = (sys.executable, "-P", "-m", "cloche.server.start")


def main() -> None:
    """Keep a server up as the JSON in $CLOCHE_SERVER says; its exit code is this program's."""
    log.configure()
    settings = json.loads(os.environ.pop(SETTINGS))
    sys.exit(Parent([*SERVER, settings["home"]], settings).keep_up())


class Parent:
    """Starts `command` with `settings`, and again when it dies, until a signal asks it to end."""

    def __init__(self, command: list[str], settings: Mapping[str, Any]) -> None:
        self.command, self.settings = command, settings
        self.descriptors: dict[str, int] = settings["held"]
        self.asked = 0  # how often a signal asked to end
        self.passed_on = 0
        self.woken, wake = os.pipe()
        for end in (self.woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # it wakes, that is all
        for number in ASKING:
            signal.signal(number, self._ask)

    def keep_up(self) -> int:
        """Return the exit code: the server's, when it was asked to end or never came up."""
        deaths, restarts, told = Deaths(), 0, None
        while True:
            begun = time.monotonic()
            pid = self._start(restarts, told)
            end = self._outlive(pid)
            if self.asked or end.asked:
                return end.code
            if not restarts and end.exited and not self._came_up(pid):
                return end.code  # it said why it can't
            deaths, told = deaths.after(time.monotonic() - begun), str(end)
            pause_s = deaths.pause_s()
            if pause_s is None:
                logger.critical(
                    "The server (pid %d) %s, for the %dth time in a row: Cloche gives up. Jobs and "
                    "endpoints keep running; the next `cloche up` finds them.",
                    *(pid, told, deaths.in_a_row),
                )
                return end.code
            restarts += 1
            soon = f" in {pause_s:g} s" if pause_s else ""
            logger.error("The server (pid %d) %s; it is started again%s", pid, told, soon)
            self._wait(pause_s)
            if self.asked:
                return 0

    def _start(self, restarts: int, ended: str | None) -> int:
        """Start a server, in a group of its own: Ctrl-C is the parent's, who passes it on once."""
        own = {"parent": os.getpid(), "restarts": restarts, "ended": ended}
        variables = {**os.environ, SETTINGS: json.dumps({**self.settings, **own})}
        return os.posix_spawn(self.command[0], self.command, variables, setpgroup=0)

    def _outlive(self, pid: int) -> ServerExit:
        """Return how the server ended; it gets each signal that asks to end."""
        while True:
            while self.passed_on < self.asked:
                self._pass_on(pid)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return ServerExit(status)
            self._sleep(None)

    def _pass_on(self, pid: int) -> None:
        """Ask the server to end. New connections are refused then: nobody would answer them."""
        if not self.passed_on:
            for name in self.descriptors.keys() - {"lock"}:
                os.close(self.descriptors[name])
        self.passed_on += 1
        os.kill(pid, signal.SIGTERM)

    def _wait(self, pause_s: float) -> None:
        """Wait that long, unless a signal asks to end."""
        until = time.monotonic() + pause_s
        while not self.asked and (left := until - time.monotonic()) > 0:
            self._sleep(left)

    def _sleep(self, at_most_s: float | None) -> None:
        """Sleep until a signal comes. One that came before is in the pipe: none is missed."""
        if select.select([self.woken], [], [], at_most_s)[0]:
            os.read(self.woken, 4096)

    def _ask(self, number: int, frame: object) -> None:
        self.asked += 1

    def _came_up(self, pid: int) -> bool:
        """Return whether the server came up: it said so in the home folder."""
        try:
            with open(os.path.join(self.settings["home"], "server.json")) as file:
                return bool(json.load(file)["pid"] == pid)
        except (OSError, ValueError, KeyError):
            return False
