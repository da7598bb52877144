"""The engine's side of fork servers: one for each environment that jobs asked for.

A fork server is started by the first job that could use one, and helps the jobs after it. It ends
with the server (its socket closes), when it was idle for long, or when its environment's packages
have changed. Where there is none, or it fails, a script starts as it always did.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloche.engine import GangSpec, ProcessSpec

PROGRAM = Path(__file__).resolve().with_name("fork_server.py")
# One thread: a fork of a process that ever ran two hangs. Threads that wait without spinning suit
# a machine that several jobs share, and it is decided when the library is loaded.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "LC_CTYPE": "C.UTF-8",  # as a sandbox has it
}


@dataclass(slots=True)
class ForkServer:
    """One that was started, and the state of its environment at that time."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    digest: tuple[int, ...]
    ready: bool = False

    def end(self) -> None:
        """Let it end: it reads the end of its socket."""
        self.control.close()
        self.process.poll()


class ForkServers:
    """Keeps fork servers by interpreter and modules; needs a server that is root."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.lock = threading.Lock()
        self.servers: dict[tuple[str, ...], ForkServer] = {}

    def conversations(self, gang: GangSpec) -> dict[str, socket.socket]:
        """Return a conversation with a fork server for each process that may have one now."""
        if not self.enabled:
            return {}
        found: dict[str, socket.socket] = {}
        with self.lock:
            for process in gang.processes:
                conversation = self._conversation(process) if process.warm else None
                if conversation is not None:
                    found[process.name] = conversation
        return found

    def memory_mib(self) -> Mapping[str, float]:
        """Return what each fork server holds, by its interpreter."""
        found: dict[str, float] = {}
        with self.lock:
            for key, server in self.servers.items():
                with suppress(psutil.NoSuchProcess):
                    held = psutil.Process(server.process.pid).memory_info().rss / 2**20
                    found[key[0]] = found.get(key[0], 0.0) + held
        return found

    def _conversation(self, spec: ProcessSpec) -> socket.socket | None:
        key = (spec.argv[0], *spec.warm)
        digest = digest_of(Path(spec.argv[0]))
        server = self.servers.get(key)
        if server is not None and (server.process.poll() is not None or server.digest != digest):
            server.end()
            server = None
        if server is None:
            with suppress(OSError):
                self.servers[key] = start(key, digest)
            return None
        try:
            if not server.ready:
                server.ready = server.control.recv(16) == b"ready"
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                socket.send_fds(server.control, [b"one"], [theirs.fileno()])
        except OSError:  # it is still importing, or has ended, or does not get on
            return None
        return ours


def start(key: tuple[str, ...], digest: tuple[int, ...]) -> ForkServer:
    """Start a fork server; it tells when it is ready."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setblocking(False)
    with theirs:
        process = subprocess.Popen(
            [key[0], str(PROGRAM), *key[1:]],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    return ForkServer(process, control, digest)


def digest_of(python: Path) -> tuple[int, ...]:
    """Return what changes when a package is installed in the interpreter's environment."""
    folders = sorted(python.parent.parent.glob("lib*/python*/site-packages"))
    return tuple(os.stat(folder).st_mtime_ns for folder in folders)
