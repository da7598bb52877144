"""A server in a process of its own, to be killed and started again."""

import os
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

from cloche.testing.platform import free_port

KEY, SECRET = "AKIAKILLKILLKILLKILL", "kill-secret-key-of-forty-characters-----"
WITHIN_S = 60.0


class Killable:
    """A server in a process of its own, on one home folder."""

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
        assert self.process is not None
        self.process.kill()
        self.process.wait()

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
