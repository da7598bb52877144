"""Engines run user processes in sandboxes. They know nothing of AWS.

A gang is 1..N processes that start together, share one private network and end on their own; a
training job, one replica of an endpoint, a function's environment are gangs. Every method may be
called twice: the second call changes nothing. A gang outlives the server: after a restart
`adopt()` finds all that run, by name.

This is all that services know of an engine. Nothing in a spec is a path of the server's disk: what
goes in is staged, what comes out is collected, a process that serves has an address. So processes
may run on another machine. `cloche.testing.engine_contract` is what an engine must pass.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, get_args

# What it holds is the number of the descriptor by which a process has the socket that it serves.
SOCKET_VARIABLE = "CLOCHE_SOCKET_FD"


@dataclass(frozen=True, slots=True)
class Input:
    """What was staged, as mounts name it; what `place` means is known to its engine alone."""

    place: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file that was staged, seen in the sandbox at `target`.

    ro: can't be changed. rw: what is changed is brought back by `collect`. overlay: may be changed
    there, and `source` never changes. `layers`, lowest first, lie over the source; `changes` is an
    empty folder that gets what the sandbox changes, to be a layer of later mounts once it is
    collected (None: that goes with the gang). `volume`: what is in an rw folder is the gang's
    alone, and of no use once that is forgotten.
    """

    source: Input
    target: str
    mode: Literal["ro", "rw", "overlay"] = "ro"
    layers: tuple[Input, ...] = ()
    changes: Input | None = None
    volume: bool = False


@dataclass(frozen=True, slots=True)
class Preload:
    """What argv[0], a Python, may have done before a script starts in it.

    A hint, for the program that argv names (`cloche.runtime.understudy`): it may find nothing.
    """

    modules: tuple[str, ...]  # imported, where they are installed
    env: Mapping[str, str]  # of what is read when interpreter and libraries are loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """Everything needed to start one process of a gang; it can be printed and compared."""

    name: str  # host name within the gang: "algo-1"
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # all of it: nothing is inherited
    workdir: str = "/"  # inside the sandbox
    mounts: tuple[Mount, ...] = ()
    # A staged file to which its stdout and stderr are appended within a second, and all of it once
    # it is seen to have ended; a line each: "<milliseconds since 1970> <text>\n". None: they are
    # kept with the gang, and read by `read_log`.
    log: Input | None = None
    cpus: float = 1.0  # declared by the instance type; the share is min(declared, machine's)
    memory_mib: int = 1024  # declared; the bound is min(declared, machine's); 0: the machine's
    disk_mib: int = 30 * 1024  # what its files may take, its input not counted; 0: no bound
    processes: int = 4096  # threads count
    log_mib: int = 1024  # what follows is not kept
    preload: Preload | None = None
    # It is handed a listening socket (SOCKET_VARIABLE): its address leads to it alone.
    serves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSpec:
    """Processes that start together or not at all.

    egress: False isolates its network: there are no doors, neither to the platform nor out.
    """

    name: str  # unique and stable: after a restart the gang is found by it
    processes: tuple[ProcessSpec, ...]
    max_run_s: float | None = None  # then all are stopped, with reason "MaxRuntimeExceeded"
    stop_grace_s: float = 120.0  # from SIGTERM to SIGKILL
    egress: bool = True
    background: bool = False  # waits for no CPU share: serves requests, idle in between
    # False: the platform's own short work. It takes no capacity from anybody, is refused for none
    # and named to nobody, and has a sixteenth of a CPU beside those that are busy.
    counted: bool = True


Exceeded = Literal["OutOfMemory", "DiskFull", "TooManyProcesses"]
Reason = Literal["Stopped", "MaxRuntimeExceeded"] | Exceeded
EXCEEDED: tuple[Reason, ...] = get_args(Exceeded)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one process.

    lost: the machine or the supervisor died, so nobody knows how it ended. Of the reasons,
    `EXCEEDED` are its own doing: it took more than it was given, and `detail` says of what.
    """

    state: Literal["running", "exited", "lost"]
    exit_code: int | None = None  # negative: killed by that signal
    reason: Reason | None = None  # why we ended it, or the kernel for us; None: it ended itself
    started: datetime | None = None
    ended: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process that serves is reached: a unix socket at `path`, or a host's port."""

    path: str = ""
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far, and hold now."""

    cpu_s: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Placed:
    """The gang runs (or ran: `launch` was called before)."""


@dataclass(frozen=True, slots=True)
class InsufficientCapacity:
    """The machine is taken; `message` says for whom, and by how much. Nothing was started.

    `holders` are the gangs that hold what there is.
    """

    message: str
    holders: tuple[str, ...] = ()

    def lacking(self, gang: str) -> str:
        """Return what is lacking, without the gang's name."""
        return self.message.removeprefix(f"{gang} ")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has, and what the gangs that run hold of it."""

    cpus: float
    memory_mib: int
    cpus_taken: float
    memory_mib_taken: int
    # Of what is taken what background gangs hold: they and the others are counted each by
    # themselves, so that only either part stays below what the machine has.
    memory_mib_background: int = 0


@dataclass(frozen=True, slots=True)
class Doors:
    """Listening sockets inside a gang's network, served from outside.

    `platform` is the gateway's address as seen from inside (the gateway's own port on
    127.0.0.1), `proxy` the next port: the way out. For a gang elsewhere they are ends of a tunnel.
    """

    platform: socket.socket
    proxy: socket.socket


class EngineError(Exception):
    """A gang could not be started, for another reason than capacity; the text says which."""


class DiskFull(EngineError):
    """No space is left for what a gang needs; later there may be."""


class Engine(Protocol):
    """Runs gangs. Its methods block for milliseconds: call them from a thread."""

    @property
    def layered(self) -> bool:
        """Return whether mounts may have layers here."""

    def stage(self, path: Path) -> Input:
        """Return what a mount names a folder or file by, as it is now; it stays the caller's.

        May take as long as bringing it to where gangs run.
        """

    def launch(self, gang: GangSpec) -> Placed | InsufficientCapacity:
        """Start all processes of the gang; returns once a supervisor answers for them."""

    def room(self, gang: GangSpec, beside: Sequence[GangSpec] = ()) -> InsufficientCapacity | None:
        """Return why there is no room for the gang now, beside what runs and gangs to come.

        Of gangs that are not launched their names and what their processes declare is enough.
        """

    def see(self, gang: str) -> Mapping[str, Seen] | None:
        """Return each process of the gang by name; None when the gang is not known."""

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with a gang's name whenever a process of it has ended or was lost.

        It is called from a thread of the engine's, for gangs that were adopted too, until `close`.
        """

    def address(self, gang: str, process: str) -> Address | None:
        """Return where a process that serves is reached; None when the gang is not known."""

    def collect(self, gang: str, path: Path, *, own: bool = False) -> None:
        """Bring what a gang has changed until now to `path`, which was staged for an rw mount.

        It is a sandbox's output there: to be read as `core.beneath` reads. own: no process of it
        runs any more, and it is the server's user's from then on; also what a mount had as
        `changes`, which is a layer then.
        """

    def read_log(self, gang: str, process: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of a process's log; empty at its end, or if there is none.

        A negative offset counts from its end.
        """

    def stop(self, gang: str) -> None:
        """Ask all processes to end (SIGTERM; SIGKILL after the grace); does not wait."""

    def forget(self, gang: str) -> None:
        """Remove what is kept of a gang that has ended (not its logs)."""

    def clear(self, gang: str) -> None:
        """Remove what a gang that has ended left in its private folders, to make space."""

    def adopt(self) -> tuple[str, ...]:
        """Return the names of all gangs that are known, running or ended."""

    def doors(self, gang: str) -> Doors | None:
        """Return the gang's listening sockets (new descriptors); None when it has none now."""

    def usage(self, gang: str) -> Mapping[str, Usage]:
        """Return what each running process of the gang uses."""

    def share(self, cpus: float) -> int:
        """Return how many CPUs a process that declared `cpus` really has: SM_NUM_CPUS."""

    def capacity(self) -> Capacity:
        """Return what the machine has and what is taken."""

    def close(self) -> None:
        """Tell of no more endings, and let go of what only this process holds; gangs go on."""
