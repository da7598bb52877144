"""What tests of an engine do over and over: run scripts, read their logs, wait for conditions."""

import os
import re
import signal
import socket
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from cloche.core.unix import short_path
from cloche.engine import (
    Address,
    Doors,
    Engine,
    GangSpec,
    Input,
    Mount,
    Placed,
    ProcessSpec,
    Seen,
)

T = TypeVar("T")
Mode = Literal["ro", "rw", "overlay"]
PORT = 4599  # of the platform's door, as seen from inside
PYTHON = os.path.realpath(sys.executable)
WITHIN_S = 90.0  # a net: two test files run at once
RECORD = re.compile(rb"\d{13}&?\+? [^\n\r]*")  # marked where a line came in parts


def wait_until(condition: Callable[[], T | None], within_s: float = WITHIN_S) -> T:
    """Return the condition's first true value; AssertionError when it takes too long."""
    until = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"not within {within_s} s"
        time.sleep(0.005)


@dataclass
class Lab:
    """A folder for one test, and how to make engines of two CPUs and 8 GiB that work in it."""

    folder: Path
    make: Callable[[], Engine]
    kill_supervisor: Callable[[str], None]  # kill -9 what looks after a gang

    def __post_init__(self) -> None:
        self.engine = self.make()

    def mount(self, path: Path, target: str, mode: Mode = "ro", **more: Any) -> Mount:
        """Stage a folder or file, and return how a sandbox sees it."""
        return Mount(self.engine.stage(path), target, mode, **more)

    def process(
        self, name: str, script: str, *mounts: Mount, env: Mapping[str, str] | None = None
    ) -> ProcessSpec:
        """Return a host that runs a shell script and logs to `NAME.log`."""
        argv = ("/bin/sh", "-c", textwrap.dedent(script))
        log = self.log_for(name)
        return ProcessSpec(name=name, argv=argv, log=log, mounts=mounts, env=env or {})

    def python(self, name: str, script: str, *mounts: Mount) -> ProcessSpec:
        """Return a host that runs a Python script."""
        prefix = Path(sys.base_prefix)
        own = () if prefix == Path("/usr") else (self.mount(prefix, str(prefix)),)
        argv = (PYTHON, "-c", textwrap.dedent(script))
        log = self.log_for(name)
        return ProcessSpec(name=name, argv=argv, log=log, mounts=(*own, *mounts))

    def log_for(self, name: str) -> Input:
        """Return the file to which a host's output goes, for `log`."""
        return self.engine.stage(self.folder / f"{name}.log")

    def run(self, *processes: ProcessSpec, name: str = "gang") -> dict[str, Seen]:
        """Run a gang to its end and return how each process ended."""
        self.place(GangSpec(name=name, processes=processes))
        return self.finished(name)

    def place(self, gang: GangSpec) -> None:
        """Launch a gang for which there is room."""
        assert self.engine.launch(gang) == Placed()

    def finished(self, name: str = "gang") -> dict[str, Seen]:
        """Wait until no process of the gang runs; return how each ended."""

        def ended() -> Mapping[str, Seen] | None:
            seen = self.engine.see(name)
            assert seen is not None
            return None if any(one.state == "running" for one in seen.values()) else seen

        return dict(wait_until(ended))

    def log(self, name: str) -> list[str]:
        """Return the texts of a host's log, of which every line must be a record."""
        path = self.folder / f"{name}.log"
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        assert lines.pop() == b"", "the last record is torn"
        for line in lines:
            assert RECORD.fullmatch(line), line
        return [line.split(b" ", 1)[1].decode() for line in lines]

    def said(self, name: str, text: str) -> bool:
        """Tell whether a host's log has the line."""
        path = self.folder / f"{name}.log"
        return path.exists() and f" {text}\n" in path.read_text(errors="replace")

    def close(self) -> None:
        """End all that still runs."""
        self.engine.close()
        for name in self.engine.adopt():
            self.kill_supervisor(name)


def outcomes(seen: Mapping[str, Seen]) -> dict[str, tuple[int | None, str | None]]:
    """Return exit code and reason of each process."""
    assert all(one.state == "exited" for one in seen.values()), seen
    return {name: (one.exit_code, one.reason) for name, one in seen.items()}


def serve_once(listener: socket.socket, answer: bytes) -> bytes:
    """Accept one connection at a door, answer it, and return what was asked."""
    listener.settimeout(WITHIN_S)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(WITHIN_S)
        asked = connection.recv(1024)
        connection.sendall(answer)
    return asked


def shut(doors: Doors) -> None:
    """Close this side's descriptors of a gang's doors."""
    doors.platform.close()
    doors.proxy.close()


def connected(address: Address | None) -> socket.socket:
    """Return a connection to a process that serves."""
    assert address is not None
    if not address.path:
        return socket.create_connection((address.host, address.port), WITHIN_S)
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(WITHIN_S)
    path = Path(address.path)
    try:
        with short_path(path.parent) as folder:
            line.connect(f"{folder}/{path.name}")
    except OSError:
        line.close()
        raise
    return line


ASK = """
import socket
address, port = "127.0.0.1:{port}".split(":")
door = socket.create_connection((address, int(port)), 20)
door.sendall(b"hello")
print("answer", door.recv(64).decode(), flush=True)
"""


def unique() -> str:
    """Return an argument for sleep(1) that no other process has."""
    return f"9{uuid.uuid4().int % 10**12}"


def running(marker: str) -> bool:
    """Tell whether a process runs that has an argument which begins with `marker`."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:1] == ["sleep"] and any(word.startswith(marker) for word in words[1:]):
            return True
    return False


def kill_by_pid(pid: int) -> None:
    """SIGKILL one process; one that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
