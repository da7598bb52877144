"""The engine of one machine: gangs under supervisors, found again by their run directories."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import psutil

from cloche.core.clock import from_ms
from cloche.engine import (
    Capacity,
    DiskFull,
    Doors,
    EngineError,
    GangSpec,
    InsufficientCapacity,
    Mount,
    Placed,
    ProcessSpec,
    Seen,
    Usage,
    cgroups,
)
from cloche.engine.accounts import Accounts, Resources
from cloche.engine.folders import clear_away, fill_host, remove_tree
from cloche.engine.probe import diagnose, probe, reduced
from cloche.engine.reduced import plan_reduced
from cloche.engine.reserve import Reserve
from cloche.engine.sandbox import Bounds, Claim, Machine, check, host_folder, plan
from cloche.engine.supervisor.group import Group
from cloche.engine.usage import children_by_parent, entered, tree_usage
from cloche.engine.warm import ForkServers

START_WITHIN_S = 90.0
ANSWER_WITHIN_S = 5.0
BACKLOG = 128  # connections that wait for a process to accept them
STALE_AFTER_S = 60.0  # folders that are made and removed in a moment were left by a killed server
INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some interpreters need it to start
ENGINE_FOLDER = Path(__file__).resolve().parent
SUPERVISOR = (
    "import sys; sys.path[:0] = [sys.argv.pop(1)]; from supervisor.main import main; main()"
)


class LocalEngine:
    """Runs gangs on this machine; everything it knows lies in `root`, one folder a gang.

    port: the gateway's, as seen from inside a gang; the proxy's is the next one.
    machine: what isolation to use; None: probe, then try it out.
    grouped: whether to bound processes by control groups, where that is possible.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 4599,
        machine: Machine | None = None,
        resources: Resources | None = None,
        grouped: bool = True,
    ) -> None:
        self.root = root
        self.ports = (port, port + 1)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.accounts = Accounts(resources or Resources.of_this_machine())
        self.lock = threading.RLock()
        self.claims: dict[str, Claim] = {}
        most, cpus = self.accounts.most, self.accounts.has.cpus
        self.groups = cgroups.Groups.found(root, most, cpus) if grouped else None
        self.reserve = Reserve(root)
        self._find_claims()
        self.machine = machine or self.tried(probe(), root)
        self.fork_servers = ForkServers(enabled=self.layered)

    @property
    def isolation(self) -> str:
        """Say in a sentence how far processes are isolated here, and what would change that."""
        if self.machine.isolation == "full":
            how = "Full isolation: private files, processes and network for every job."
        else:
            how = "Reduced isolation: jobs see this machine."
        return " ".join((how, cgroups.told(self.groups), *self.machine.advice))

    @property
    def layered(self) -> bool:
        """Return whether mounts may have layers here: it takes sandboxes."""
        return self.machine.isolation == "full"

    def launch(self, gang: GangSpec) -> Placed | InsufficientCapacity:
        """Start all processes of the gang; EngineError says why they can't be started.

        DiskFull: they can be when there is space again.
        """
        folder = self.folder(gang.name)
        if await_start(folder):
            return Placed()
        claim = self.accounts.claim(gang)
        with self.lock:
            if held(folder):
                return Placed()
            refusal = self.accounts.refusal(claim, self._claims()) or self.reserve.refusal()
            if refusal is not None:
                holders = tuple(n for n, c in self.claims.items() if c.cpus or c.memory_mib)
                return InsufficientCapacity(f"{gang.name} {refusal}", holders)
            lock = self._make_folder(folder)
            self.claims[gang.name] = claim
        try:
            self._start(gang, folder, claim, lock)
        except BaseException as error:
            fcntl.flock(lock, fcntl.LOCK_UN)
            self._remove_groups(folder)
            remove_tree(folder)
            if disk_full(error):
                raise DiskFull(f"{gang.name}: {error}") from error
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise EngineError(f"{gang.name}: {error}") from error
            raise
        finally:
            os.close(lock)
        return Placed()

    def see(self, gang: str) -> Mapping[str, Seen] | None:
        """Return each process of the gang by name; None when the gang is not known."""
        folder = self.folder(gang)
        state = read_record(folder / "state.json")
        if state is None:
            return None
        alive = held(folder)  # before the exit records are read: they are written before it ends
        started = from_ms(state["started_ms"])
        seen: dict[str, Seen] = {}
        for name in state["processes"]:
            record = read_record(folder / f"exit-{name}.json")
            if record is not None:
                seen[name] = Seen(
                    "exited",
                    record["exit_code"],
                    record["reason"],
                    started,
                    from_ms(record["ended_ms"]),
                    record.get("detail", ""),  # supervisors of earlier versions have none
                )
            else:
                seen[name] = Seen("running" if alive else "lost", started=started)
        return seen

    def stop(self, gang: str) -> None:
        """Ask all processes to end; does not wait."""
        self._ask(gang, b"stop")

    def forget(self, gang: str) -> None:
        """Remove the run directory and what its processes left in overlays, /tmp and home."""
        folder = self.folder(gang)
        if not folder.exists():
            return
        seen = self.see(gang) or {}
        if any(one.state == "running" for one in seen.values()):
            raise EngineError(f"{gang} still runs: it can't be forgotten")
        await_end(folder)
        self._remove_groups(folder)
        clear_away([self._set_aside(folder)])
        self.reserve.make()

    def adopt(self) -> tuple[str, ...]:
        """Return the names of all gangs that are known, running or ended."""
        return tuple(
            sorted(
                unquote(folder.name)
                for folder in self._folders()
                if (folder / "state.json").exists()
            )
        )

    def doors(self, gang: str) -> Doors | None:
        """Return the gang's listening sockets (new descriptors); None when it has none now."""
        descriptors = self._ask(gang, b"doors")
        if not descriptors:
            return None
        platform, proxy = (socket.socket(fileno=fd) for fd in descriptors)
        return Doors(platform, proxy)

    def usage(self, gang: str) -> Mapping[str, Usage]:
        """Return what each running process of the gang, with all that it started, uses."""
        folder = self.folder(gang)
        state, planned = read_record(folder / "state.json"), read_record(folder / "plan.json")
        if state is None or planned is None or not held(folder):
            return {}
        groups = {each["name"]: each.get("groups", {}) for each in planned["processes"]}
        family: Mapping[int, list[psutil.Process]] = {}
        used: dict[str, Usage] = {}
        for name, process in state["processes"].items():
            if not (folder / f"exit-{name}.json").exists():
                told = cgroups.usage(groups[name])
                if told is not None:
                    used[name] = told
                    continue
                family = family or children_by_parent()
                with suppress(psutil.NoSuchProcess):  # it is just ending
                    strangers = entered(process["group"], family)
                    used[name] = tree_usage([psutil.Process(process["pid"]), *strangers], family)
        return used

    def share(self, cpus: float) -> int:
        """Return how many CPUs a process that declared `cpus` really has."""
        return self.accounts.share(cpus)

    def capacity(self) -> Capacity:
        """Return what the machine has and what is taken."""
        with self.lock:
            return self.accounts.capacity(self._claims())

    def _make_folder(self, folder: Path) -> int:
        """Make the run directory, and return its lock, held: it is never there without."""
        remove_tree(folder)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root))
        lock = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder)
        return lock

    def _set_aside(self, folder: Path) -> Path:
        """Rename a run directory, so that nobody knows it any more, however long it takes to go."""
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.root))
        with suppress(FileNotFoundError):
            folder.rename(gone / "run")
        return gone

    def _start(self, gang: GangSpec, folder: Path, claim: Claim, lock: int) -> None:
        """Prepare the run directory, start the supervisor, wait until all processes run."""
        doors: list[socket.socket] = []
        conversations: dict[str, socket.socket] = {}
        listening: dict[str, socket.socket] = {}
        bounds = self._bounds(gang)
        if self.machine.isolation == "full":
            planned = plan(gang, folder, self.machine, self.ports, claim, bounds)
            conversations = self.fork_servers.conversations(gang)
        else:
            wanted = self.ports if gang.egress else ()
            doors = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in wanted]
            ports = {
                inside: door.getsockname()[1] for inside, door in zip(wanted, doors, strict=True)
            }
            planned = plan_reduced(gang, folder, ports, claim, bounds)
        try:
            for process in gang.processes:
                process.log.parent.mkdir(parents=True, exist_ok=True)
                fill_host(gang, process, host_folder(folder, process.name), self.machine)
                if process.listening is not None:
                    listening[process.name] = bound(process.listening)
            (folder / "plan.json").write_text(json.dumps(planned, indent=1))
            sockets = {str(door.fileno()): door.fileno() for door in doors}
            sockets |= {f"{name}={s.fileno()}": s.fileno() for name, s in conversations.items()}
            sockets |= {f"{name}@{s.fileno()}": s.fileno() for name, s in listening.items()}
            self._supervise(gang.name, folder, lock, sockets)
        finally:
            for given in (*doors, *conversations.values(), *listening.values()):
                given.close()

    def _bounds(self, gang: GangSpec) -> dict[str, Bounds]:
        """Return what each process may have, and make the groups that hold it to that."""
        check(gang)
        found: dict[str, Bounds] = {}
        with self.lock:
            for process in gang.processes:
                bounds = self.accounts.bounds(process)
                if self.groups is not None:
                    cpus = self.accounts.share(process.cpus) if gang.counted else 0
                    with suppress(OSError):  # no more groups are to be had: it is watched
                        made = self.groups.make(gang.name, process.name, bounds, cpus)
                        bounds = replace(bounds, groups=made)
                found[process.name] = bounds
        return found

    def _remove_groups(self, folder: Path) -> None:
        """Remove a gang's control groups, if its supervisor could not."""
        planned = read_record(folder / "plan.json")
        for process in [] if planned is None else planned["processes"]:
            Group(process.get("groups", {})).remove()
        if self.groups is not None:
            with self.lock:
                self.groups.remove_top()

    def _supervise(self, gang: str, folder: Path, lock: int, sockets: Mapping[str, int]) -> None:
        report, told = os.pipe()
        try:
            descriptors = (lock, told, *sockets.values())
            arguments = [str(ENGINE_FOLDER), str(folder), str(lock), str(told), *sockets]
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", SUPERVISOR, *arguments],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                check=True,
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
                timeout=START_WITHIN_S,
            )
            os.close(told)
            told = -1
            with os.fdopen(report, "rb", closefd=False) as answers:
                answer = answers.read().decode()
        finally:
            os.close(report)
            if told >= 0:
                os.close(told)
        if answer != "ok":
            raise EngineError(f"{gang}: {answer or 'the supervisor died at its start'}")

    @classmethod
    def tried(cls, machine: Machine, root: Path) -> Machine:
        """Return `machine` if a trial run works with it, else one without isolation and why."""
        if machine.isolation != "full":
            return machine
        engine = cls(root, machine=machine)
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=root) as name:
            log, source = Path(name) / "log", Path(name) / "input"
            source.mkdir()
            (source / "object").touch(0o444)
            process = ProcessSpec(
                name="trial",
                argv=("/bin/sh", "-c", "echo changed > /input/object"),
                mounts=(Mount(source, "/input", "overlay"),),
                log=log,
                memory_mib=0,
            )
            gang = Path(name).name
            try:
                engine.launch(GangSpec(name=gang, processes=(process,), background=True))
            except EngineError as error:
                return reduced(*diagnose(str(error)))
            await_end(engine.folder(gang))
            seen = engine.see(gang) or {}
            engine.forget(gang)
        if seen["trial"].exit_code != 0:
            advice = "Scripts can't change their input here: that takes id-mapped mounts (Linux 6)."
            return replace(machine, advice=(advice,))
        return machine

    def folder(self, gang: str) -> Path:
        """Return the gang's run directory: its name, made safe for a file system."""
        name = quote(gang, safe="")
        return self.root / (name.replace(".", "%2E", 1) if name.startswith(".") else name)

    def _folders(self) -> list[Path]:
        return [folder for folder in self.root.iterdir() if not folder.name.startswith(".")]

    def _find_claims(self) -> None:
        """Take stock after a restart, and clear away what a killed server left half done.

        Beside the start: what a job left may be millions of files.
        """
        left: list[Path] = []
        for folder in self._folders():
            if held(folder):
                planned = read_record(folder / "plan.json")
                if planned is not None:
                    self.claims[unquote(folder.name)] = Claim(
                        planned["cpus"], planned["memory_mib"], planned["background"]
                    )
            elif not (folder / "state.json").exists():
                left.append(self._set_aside(folder))
        if self.groups is not None:
            self.groups.sweep(unquote(folder.name) for folder in self._folders() if held(folder))
        for folder in self.root.glob(".*"):
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < time.time() - STALE_AFTER_S and not held(folder):
                    left.append(folder)
        if left:
            threading.Thread(target=clear_away, args=(left,), daemon=True).start()

    def _claims(self) -> list[Claim]:
        """Return the claims of the gangs that run; those that ended are dropped."""
        for name in [name for name in self.claims if not runs(self.folder(name))]:
            del self.claims[name]
        return list(self.claims.values())

    def _ask(self, gang: str, request: bytes) -> list[int]:
        """Ask the gang's supervisor; return the descriptors that it sends, if it lives."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_WITHIN_S)
            try:
                with short_path(self.folder(gang)) as folder:
                    connection.connect(f"{folder}/control")
                connection.sendall(request)
                return socket.recv_fds(connection, 16, 2)[1]
            except (FileNotFoundError, NotADirectoryError, ConnectionError):
                return []  # there is none, or it was just ending


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Give a folder a short name: the address of a unix socket has at most 104 bytes."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        link = Path(name) / "f"
        link.symlink_to(folder)
        yield str(link)


def bound(path: Path) -> socket.socket:
    """Return a unix socket that listens at the path; what was there goes."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path.parent) as folder:
            listening.bind(f"{folder}/{path.name}")
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def held(folder: Path) -> bool:
    """Tell whether a supervisor (or a launch under way) holds the run directory's lock."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def runs(folder: Path) -> bool:
    """Tell whether a gang is starting or a process of it runs."""
    if not held(folder):
        return False
    state = read_record(folder / "state.json")
    return state is None or not all(
        (folder / f"exit-{name}.json").exists() for name in state["processes"]
    )


def await_start(folder: Path) -> bool:
    """Tell whether the gang was started before; waits where a start is still under way."""
    until = time.monotonic() + START_WITHIN_S
    while not (folder / "state.json").exists():
        if not held(folder):
            return (folder / "state.json").exists()
        if time.monotonic() > until:
            raise EngineError(f"{folder.name}: its supervisor makes no progress")
        time.sleep(0.005)
    return True


def await_end(folder: Path) -> None:
    """Return when the supervisor has let go of the run directory of an ended gang."""
    until = time.monotonic() + ANSWER_WITHIN_S
    while held(folder):
        if time.monotonic() > until:
            raise EngineError(f"{folder.name}: its supervisor does not end")
        time.sleep(0.002)


def disk_full(error: BaseException) -> bool:
    """Tell whether an error means that no space is left, here or for the supervisor."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, EngineError) and os.strerror(errno.ENOSPC) in str(error)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record of the run directory; None when it is not written."""
    try:
        return cast(dict[str, Any], json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
