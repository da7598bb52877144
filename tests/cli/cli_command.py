"""The `cloche` command as a user runs it: in processes of its own, each with a home of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloche.cli.aws_client import AwsClient
from cloche.cli.down import is_alive
from cloche.core import home as homes
from cloche.core.config import Home
from cloche.testing.platform import NOWHERE

CLOCHE = (sys.executable, "-m", "cloche")


def until(what: Callable[[], object], timeout_s: float = 90.0) -> None:
    """Return once `what()` is true; AssertionError after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.02)


@dataclass
class Cloche:
    """Runs commands on one home folder."""

    home: Path
    port: int
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, code: int | None = 0, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `cloche ARGUMENTS`; AssertionError when it ends with another code."""
        done = subprocess.run(
            [*CLOCHE, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            env=self.environment,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def up(self, *options: str, code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run `cloche up --detach` on this home's port."""
        return self("up", "--detach", "--port", str(self.port), *options, code=code)

    def client(self, service: str) -> Any:
        """Return a boto3 client with root's keys."""
        home = Home(self.home)
        server = homes.read_server(home)
        assert server is not None
        return AwsClient(home, server).aws(service)

    @property
    def environment(self) -> dict[str, str]:
        """What the commands see."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **os.environ,
            "CLOCHE_HOME": str(self.home),
            "PATH": path,
            "COLUMNS": "100",
            "CLOCHE_S3_ADDRESS": NOWHERE,
            **self.variables,
        }

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._told("pid")

    @property
    def parent(self) -> int:
        """The process that holds the sockets, and starts the server again when it dies."""
        return self._told("parent")

    def _told(self, name: str) -> int:
        return int(json.loads((self.home / "server.json").read_text())[name])


def end(command: Cloche) -> None:
    """Stop the home's server and its parent, if they are up, as a signal does."""
    if (command.home / "server.json").is_file():
        pid = command.parent
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_alive(pid))
