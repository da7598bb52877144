"""A server that is killed with -9, life after life, and the clients that ask it."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cloche.cli.down import is_alive
from cloche.engine.local.engine import LocalEngine
from cloche.testing.platform import free_port

KEY, SECRET = "AKIAKILLATEVERYSTEP0", "a-secret-key-of-the-test-forty-letters--"
ACCOUNT, REGION = "123456789012", "us-east-1"
REGISTRY = f"763104351884.dkr.ecr.{REGION}.amazonaws.com"
WITHIN_S = 60.0
LIVES = 60  # far more than there are steps: a server that gets no further ends the test


class Server:
    """The server of one home folder, life after life."""

    mode = "-"

    def __init__(self, folder: Path, program: Path, **options: Any) -> None:
        self.home, self.journal, self.port = folder / "home", folder / "journal", free_port()
        self.program, self.options = program, options
        self.journal.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self.output = (folder / "server.log").open("wb")
        self.lives, self.most_lives = 0, LIVES
        self.clients: dict[str, Any] = {}
        # The folder of the package of the release before; None: this one's.
        self.release: Path | None = None

    def up(self, *, doomed: bool) -> None:
        """Start a life; returns once it answers, or has ended."""
        self.lives += 1
        assert self.lives <= self.most_lives, self.journal.read_text()
        options = {
            "home": str(self.home),
            "host": "127.0.0.1",
            "port": self.port,
            "region": REGION,
            "account": ACCOUNT,
            "allow_egress": [],
            "root_access_key_id": KEY,
            "root_secret_access_key": SECRET,
            "log": str(self.output.name),
        } | self.options
        journal = str(self.journal) if doomed else self.mode
        settings, env = json.dumps(options), dict(os.environ)
        command = [sys.executable, str(self.program), settings, journal]
        if self.release is not None:  # by its own program: ours is of this release
            command = [sys.executable, "-P", "-m", "cloche.start", str(self.home)]
            env |= {"PYTHONPATH": str(self.release), "CLOCHE_SERVER": settings}
        self.process = subprocess.Popen(command, stdout=self.output, stderr=self.output, env=env)
        until(lambda: self.ended or answers(self))

    @property
    def ended(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code in (None, -signal.SIGKILL), Path(str(self.output.name)).read_text()
        return code is not None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = self._client(service)
        return self.clients[service]

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(
                proxies={}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20
            ),
        )


class Kept(Server):
    """One whose parent starts it again when it was killed."""

    mode = "parent"

    def kill(self) -> None:
        """Kill the server, not its parent."""
        until(lambda: is_alive(self.pid))  # it answers before it says its pid
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists())  # its parent has seen it end

    @property
    def pid(self) -> int:
        return int(json.loads((self.home / "server.json").read_text())["pid"])


def until(condition: Callable[[], Any], within_s: float = WITHIN_S, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(every_s)


def answers(server: Server) -> bool:
    try:
        server.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError):
        return False
    return True


def archive(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def end_all(server: Server) -> None:
    """End the server and all that it started."""
    if server.process is not None and server.process.poll() is None:
        server.process.kill()
        server.process.wait()
    server.output.close()
    engine = LocalEngine(server.home / "runs", port=server.port)
    for gang in engine.adopt():
        engine.stop(gang)
    # An endpoint's replica ends within a moment of being asked to.
    until(lambda: not any(running(engine, gang) for gang in engine.adopt()))


def running(engine: LocalEngine, gang: str) -> bool:
    return any(seen.state == "running" for seen in (engine.see(gang) or {}).values())
