"""The platform as a user runs it: the `cloche` command, in processes of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloche.tour.errors import TourError

CLOCHE = (sys.executable, "-P", "-m", "cloche")
TIMEOUT_S = 180


class TourServer:
    """The platform of one home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def is_up(self) -> bool:
        """Tell whether a platform already serves this home folder."""
        return self._cloche("status").returncode == 0

    def up(self, port: int | None = None) -> None:
        """Start the platform, without `port` on a free one; TourError when it does not start."""
        chosen = port or free_port()
        result = self._cloche("up", "--detach", "--port", str(chosen))
        if result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise TourError(f"The platform did not start. `cloche up` said:\n{said}")

    def down(self) -> None:
        """Stop the platform and what runs on it; TourError when it does not end."""
        result = self._cloche("down", "--stop-jobs")
        if result.returncode != 0:
            said = (result.stderr or result.stdout).strip()
            raise TourError(f"The platform did not stop. `cloche down` said:\n{said}")

    def run(self, command: Sequence[str]) -> int:
        """Run a command as `cloche run` does, on this terminal; returns its exit code.

        The command is in a session of its own, so that Ctrl-C reaches it once and through us: it
        gets SIGINT and may end in peace before KeyboardInterrupt is raised here.
        """
        child = subprocess.Popen(
            [*CLOCHE, "run", "--home", str(self.home), "--", *command], start_new_session=True
        )
        try:
            return child.wait()
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGINT)
            child.wait()
            raise

    def _cloche(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, even when Ctrl-C comes meanwhile: half a start is worse."""
        child = subprocess.Popen(
            [*CLOCHE, command, "--home", str(self.home), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            try:
                said, complained = child.communicate(timeout=TIMEOUT_S)
            except KeyboardInterrupt:
                child.communicate(timeout=TIMEOUT_S)
                raise
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise TourError(f"`cloche {command}` gave no answer in {TIMEOUT_S} s") from error
        return subprocess.CompletedProcess(child.args, child.returncode, said, complained)


def free_port() -> int:
    """Return a port that is free together with the next one (the platform's HTTPS proxy)."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise TourError("No two neighbouring free ports were found on 127.0.0.1")
