"""The engine's side of fork servers: one for each environment that jobs asked for.

A fork server is started with the first job that could use one; it imports what that job's script
imports, and helps the jobs after it. It ends with the server (its socket closes), when it was idle
for long, when its environment's packages have changed, or when others are used more. Where it
fails, a script starts as it always did; one whose imports start threads is not tried again.

It runs outside every sandbox and serves all roles, so it has nothing of a job's on its path: no
layer, no variable, no folder. `Preload` may name only what the platform's own table installed.
"""

import os
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloche.engine import GangSpec, ProcessSpec

PROGRAM = Path(__file__).resolve().with_name("fork_server.py")
# One thread: a fork of a process that ever ran two hangs.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # PyArrow, which pandas imports
    "HOME": "/nonexistent",  # no packages of the user's own (~/.local)
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOST = 4  # fork servers at a time: each holds its packages (torch: 500 MiB)


@dataclass(frozen=True, slots=True)
class Key:
    """What a fork server is for."""

    python: str
    modules: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ForkServer:
    """One that was started, and the state of its environment at that time."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    digest: tuple[int, ...]

    @property
    def gone(self) -> bool:
        """Return whether it ended and another may do better: it was idle for long, or killed."""
        status = self.process.poll()
        return status is not None and status <= 0

    def end(self) -> None:
        """Let it end: it reads the end of its socket."""
        self.control.close()
        self.process.poll()


class ForkServers:
    """Keeps fork servers by interpreter and what they have done before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.servers: dict[Key, ForkServer] = {}

    def conversations(self, gang: GangSpec) -> dict[str, socket.socket]:
        """Return a conversation with a fork server for each process that may have one."""
        found: dict[str, socket.socket] = {}
        with self.lock:
            for process in gang.processes:
                key = self._key(process)
                layered = any(mount.layers for mount in process.mounts)
                conversation = None if key is None else self._conversation(key, layered=layered)
                if conversation is not None:
                    found[process.name] = conversation
        return found

    def memory_mib(self) -> list[float]:
        """Return what each fork server that runs holds."""
        found: list[float] = []
        with self.lock:
            for server in self.servers.values():
                if server.process.poll() is None:
                    with suppress(psutil.NoSuchProcess):
                        found.append(psutil.Process(server.process.pid).memory_info().rss / 2**20)
        return found

    def _key(self, spec: ProcessSpec) -> Key | None:
        """Return which fork server a process would have; None: none."""
        if spec.preload is None or not spec.preload.modules:
            return None
        return Key(spec.argv[0], spec.preload.modules, tuple(sorted(spec.preload.env.items())))

    def _conversation(self, key: Key, *, layered: bool) -> socket.socket | None:
        digest = digest_of(Path(key.python))
        server = self.servers.pop(key, None)
        if server is not None and (server.gone or server.digest != digest):
            server.end()
            server = None
        try:
            self.servers[key] = server = server or start(key, digest)  # the last one that was used
            if len(self.servers) > MOST:
                self.servers.pop(next(iter(self.servers))).end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                word = b"layered" if layered else b"one"
                socket.send_fds(server.control, [word], [theirs.fileno()])
        except OSError:  # it has ended, or does not get on
            return None
        return ours


def start(key: Key, digest: tuple[int, ...]) -> ForkServer:
    """Start a fork server; what it is asked while it imports waits in its socket."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setblocking(False)
    with theirs:
        process = subprocess.Popen(
            [key.python, str(PROGRAM), *key.modules],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={
                **ENVIRONMENT,
                "PATH": f"{Path(key.python).parent}:{SYSTEM_PATH}",
                **dict(key.env),
            },
            start_new_session=True,
        )
    return ForkServer(process, control, digest)


def digest_of(python: Path) -> tuple[int, ...]:
    """Return what changes when a package is installed in the interpreter's environment."""
    folders = sorted(python.parent.parent.glob("lib*/python*/site-packages"))
    return tuple(os.stat(folder).st_mtime_ns for folder in folders)
