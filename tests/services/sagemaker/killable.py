"""A server in a process of its own, to be killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from cloche.cli.down import is_alive
from cloche.testing.platform import free_port

KEY, SECRET = "AKIAKILLKILLKILLKILL", "kill-secret-key-of-forty-characters-----"
WITHIN_S = 60.0


class Killable:
    """`cloche up` on one home folder: a parent, and the server that it starts again."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home, self.port, self.variables = home, free_port(), variables
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        command = [sys.executable, "-m", "cloche", "up", "--home", str(self.home)]
        command += ["--port", str(self.port), "--region", "us-east-1"]
        command += ["--account-id", "123456789012"]
        command += ["--root-access-key-id", KEY, "--root-secret-access-key", SECRET]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.variables},
        )
        self.until(self.answers)

    def kill(self) -> None:
        """Kill the server. Its parent starts another one; connections wait for it."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        # Its parent has seen it end: until then one of its threads may keep its connections open.
        self.until(lambda: not Path(f"/proc/{pid}").exists())

    def kill_all(self) -> None:
        """Kill the parent, and the server with it."""
        assert self.process is not None
        pid = self.pid
        self.process.kill()
        self.process.wait()
        self.until(lambda: not is_alive(pid))

    @property
    def pid(self) -> int:
        """The server's process. It answers before it says its pid."""
        said = self.home / "server.json"
        self.until(lambda: said.exists() and is_alive(json.loads(said.read_text())["pid"]))
        return int(json.loads(said.read_text())["pid"])

    def answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(f"{self.address}/_cloche/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)
