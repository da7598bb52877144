"""The engine of one machine: gangs under supervisors, found again by their run directories."""

import copy
import fcntl
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psutil

from cloche.core import atomic, beneath
from cloche.core.clock import from_ms
from cloche.core.trees import clear_away
from cloche.engine import (
    Address,
    Capacity,
    DiskFull,
    Doors,
    EngineError,
    GangSpec,
    Input,
    InsufficientCapacity,
    Mount,
    Placed,
    ProcessSpec,
    Seen,
    Usage,
)
from cloche.engine.local import cgroups, volumes
from cloche.engine.local.accounts import Accounts, Resources
from cloche.engine.local.control import ask
from cloche.engine.local.endings import Endings
from cloche.engine.local.folders import fill_host, make_run, private_folders, set_aside, take_back
from cloche.engine.local.forking import ForkServers
from cloche.engine.local.probe import diagnose, probe, reduced
from cloche.engine.local.reduced import plan_reduced
from cloche.engine.local.reserve import Reserve, disk_full
from cloche.engine.local.runs import (
    await_end,
    await_start,
    held,
    read_file,
    read_record,
    runs,
)
from cloche.engine.local.sandbox import (
    Claim,
    Machine,
    ResourceLimits,
    Volume,
    check,
    host_folder,
    log_of,
    plan,
)
from cloche.engine.local.sockets import bound, older_serving, serving
from cloche.engine.local.supervising import Supervising
from cloche.engine.local.supervisor.group import Cgroup
from cloche.engine.local.usage import children_by_parent, entered, tree_usage

TRIAL = ".trial-"  # by which gangs of a trial run are named
AT_ONCE = 4  # volumes that are made
STALE_AFTER_S = 60.0  # folders that are made and removed in a moment were left by a killed server


class LocalEngine:
    """Runs gangs on this machine; everything it knows lies in `root`, one folder a gang.

    port: the gateway's, as seen from inside a gang; the proxy's is the next one.
    machine: what isolation to use; None: probe, then try it out.
    grouped: whether to bound processes by control groups, where that is possible.
    mounted: whether their files lie in volumes, where that is possible.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 4599,
        machine: Machine | None = None,
        resources: Resources | None = None,
        grouped: bool = True,
        mounted: bool = True,
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
        self.volumes = volumes.Volumes(root) if mounted else None
        self.fork_servers = ForkServers()
        self.endings: Endings | None = None
        self._find_claims()
        self.trial = self._try_out(machine)

    @property
    def machine(self) -> Machine:
        """Return what isolation to use; waits for the trial, and raises what ended it."""
        return self.trial.result()

    @property
    def isolation(self) -> str:
        """Say in a sentence how far processes are isolated here, and what would change that."""
        if self.machine.isolation == "full":
            how = "Full isolation: private files, processes and network for every job."
        else:
            how = "Reduced isolation: jobs see this machine."
        bounds = cgroups.told(self.groups, self._volumes_told())
        return " ".join((how, bounds, *self.machine.advice))

    def _volumes_told(self) -> str | None:
        """Say why files lie in no volumes; None: they do."""
        if self.volumes is None or self.machine.user is None:
            return ""  # that is for other reasons, which are told
        return self.volumes.lack or None

    @property
    def layered(self) -> bool:
        """Return whether mounts may have layers here: it takes sandboxes."""
        return self.machine.isolation == "full"

    def stage(self, path: Path) -> Input:
        """Return what a mount names a folder or file by: on this machine it stays where it is."""
        return Input(str(path))

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
            if (refused := self._refused(gang)) is not None:
                return refused
            lock = make_run(self.root, folder)
            self.claims[gang.name] = claim
        try:
            self._start(gang, folder, claim, lock)
        except BaseException as error:
            fcntl.flock(lock, fcntl.LOCK_UN)
            self._remove_groups(folder)
            volumes.discard(folder)
            beneath.remove(folder)
            if disk_full(error):
                raise DiskFull(f"{gang.name}: {error}") from error
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise EngineError(f"{gang.name}: {error}") from error
            raise
        finally:
            os.close(lock)
        if self.endings is not None:
            self.endings.watch(gang.name, folder)
        return Placed()

    def on_ended(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the name of each gang of which a process has ended."""
        assert self.endings is None, "one listens"
        self.endings = Endings(tell)
        for gang in self.adopt():
            self.endings.watch(gang, self.folder(gang))

    def address(self, gang: str, process: str) -> Address | None:
        """Return the socket of a process that serves; None when the gang is not known."""
        folder = self.folder(gang)
        planned = read_record(folder / "plan.json")
        if planned is None:
            return None
        if planned.get("version", 1) > 1:
            return Address(path=str(serving(folder, process)))
        older = older_serving(planned, process)
        return None if older is None else Address(path=str(older))

    def collect(self, gang: str, path: Path, *, own: bool = False) -> None:
        """Nothing is to be brought; `own`: what a sandbox wrote becomes the server's user's."""
        if not own:
            return
        if runs(self.folder(gang)):
            raise EngineError(f"{gang} still runs: what it writes is its own")
        planned = read_record(self.folder(gang) / "plan.json")
        if planned is not None:
            take_back(path, planned)

    def room(self, gang: GangSpec, beside: Sequence[GangSpec] = ()) -> InsufficientCapacity | None:
        """Return why there is no room for the gang now, beside what runs and gangs to come."""
        with self.lock:
            return None if held(self.folder(gang.name)) else self._refused(gang, beside)

    def _refused(
        self, gang: GangSpec, beside: Sequence[GangSpec] = ()
    ) -> InsufficientCapacity | None:
        claims = {each.name: self.accounts.claim(each) for each in beside} | self._claims()
        claim = self.accounts.claim(gang)
        refusal = self.accounts.refusal(claim, claims.values()) or self.reserve.refusal()
        if refusal is None:
            return None
        holders = tuple(n for n, c in claims.items() if c.cpus or c.memory_mib)
        return InsufficientCapacity(f"{gang.name} {refusal}", holders)

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

    def read_log(self, gang: str, process: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of a process's log; a negative offset is from its end."""
        planned = read_record(self.folder(gang) / "plan.json") or {"processes": ()}
        for each in planned["processes"]:
            if each["name"] == process:
                return read_file(Path(each["log"]), offset, limit)
        return b""

    def stop(self, gang: str) -> None:
        """Ask all processes to end; does not wait."""
        ask(self.folder(gang), b"stop")

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
        clear_away([set_aside(self.root, folder)])
        self.reserve.make()

    def clear(self, gang: str) -> None:
        """Remove what a gang that has ended left in /tmp, home and overlays."""
        folder = self.folder(gang)
        for name in {} if runs(folder) else self.see(gang) or {}:
            clear_away(private_folders(host_folder(folder, name)))

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
        descriptors = ask(self.folder(gang), b"doors")
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
            return self.accounts.capacity(self._claims().values())

    def close(self) -> None:
        """Tell of no more endings."""
        if self.endings is not None:
            self.endings.close()
            self.endings = None

    def _start(self, gang: GangSpec, folder: Path, claim: Claim, lock: int) -> None:
        """Prepare the run directory, start the supervisor, wait until all processes run."""
        doors: list[socket.socket] = []
        conversations: dict[str, socket.socket] = {}
        listening: dict[str, socket.socket] = {}
        check(gang)
        if self.machine.isolation == "full":
            conversations = self.fork_servers.conversations(gang)
        else:
            wanted = self.ports if gang.egress else ()
            doors = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in wanted]
        try:
            for process in gang.processes:
                log_of(process, folder).parent.mkdir(parents=True, exist_ok=True)
                if process.serves:
                    listening[process.name] = bound(serving(folder, process.name))
            sockets = {str(door.fileno()): door.fileno() for door in doors}
            sockets |= {f"{name}={s.fileno()}": s.fileno() for name, s in conversations.items()}
            sockets |= {f"{name}@{s.fileno()}": s.fileno() for name, s in listening.items()}
            with Supervising(folder, lock, sockets) as supervisor:
                self._prepare(gang, folder, claim, [door.getsockname()[1] for door in doors])
                answer = supervisor.go()
            if answer != "ok":
                raise EngineError(f"{gang.name}: {answer or 'the supervisor died at its start'}")
        finally:
            for given in (*doors, *conversations.values(), *listening.values()):
                given.close()

    def _prepare(self, gang: GangSpec, folder: Path, claim: Claim, doors: list[int]) -> None:
        """Fill the run directory, while the supervisor's interpreter starts."""
        if self.volumes is not None and self.machine.user is not None:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                making = self.volumes.begin(gang, folder, pool)
                bounds = self._bounds(gang)
            for name, made in making.items():
                bounds[name] = replace(bounds[name], volume=made.result())
        else:
            bounds = self._bounds(gang)
        if self.machine.isolation == "full":
            planned = plan(gang, folder, self.machine, self.ports, claim, bounds)
        else:
            ports = dict(zip(self.ports, doors, strict=False))
            planned = plan_reduced(gang, folder, ports, claim, bounds)
        for process in gang.processes:
            fill_host(gang, process, host_folder(folder, process.name), self.machine)
        content = json.dumps(planned, indent=1).encode()  # whole, or not there: it may be killed
        atomic.write(folder / "plan.json", content, mode=0o644, durable=False)

    def _bounds(self, gang: GangSpec) -> dict[str, ResourceLimits]:
        """Return what each process may have, and make the groups that hold it to that."""
        found: dict[str, ResourceLimits] = {}
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
            Cgroup(process.get("groups", {})).remove()
        if self.groups is not None:
            with self.lock:
                self.groups.remove_top()

    def _try_out(self, machine: Machine | None) -> "Future[Machine]":
        """Probe and try out beside the server's start, unless told what to use."""
        if machine is not None:
            known: Future[Machine] = Future()
            known.set_result(machine)
            return known
        beside = ThreadPoolExecutor(1, "trial")
        try:
            return beside.submit(lambda: self.tried(probe()))
        finally:
            beside.shutdown(wait=False)

    def tried(self, machine: Machine) -> Machine:
        """Return `machine` if a trial run works with it, else one without isolation and why."""
        if machine.isolation != "full":
            return machine
        engine = copy.copy(self)  # the same, that goes by what is tried
        engine.trial = Future()
        engine.trial.set_result(machine)
        with tempfile.TemporaryDirectory(prefix=TRIAL, dir=self.root) as name:
            source = Path(name) / "input"
            source.mkdir()
            (source / "object").touch(0o444)
            process = ProcessSpec(
                name="trial",
                argv=("/bin/sh", "-c", "echo changed > /input/object"),
                mounts=(Mount(engine.stage(source), "/input", "overlay"),),
                memory_mib=0,
            )
            gang = Path(name).name
            try:
                spec = GangSpec(name=gang, processes=(process,), background=True)
                if isinstance(engine.launch(spec), InsufficientCapacity):
                    return machine  # the disk is full: nothing can be tried, nor started
            except EngineError as error:
                return reduced(*diagnose(str(error)))
            await_end(engine.folder(gang))
            seen = engine.see(gang) or {}
            engine.forget(gang)
        if self.volumes is not None and self.volumes.lack:
            self.volumes.possible = False  # it is not tried each time
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
        for folder in self._folders():  # a newer release's is refused before anything is changed
            read_record(folder / "plan.json"), read_record(folder / "state.json")
        for folder in self._folders():
            alive = held(folder)
            trial = unquote(folder.name).startswith(TRIAL)  # of a server that was killed meanwhile
            known = (folder / "state.json").exists() and not trial
            planned = read_record(folder / "plan.json") if known or alive else None
            if known and planned is not None:
                self._restore_volumes(folder, planned)
            if alive:
                if planned is not None:
                    self.claims[unquote(folder.name)] = Claim(
                        planned["cpus"], planned["memory_mib"], planned["background"]
                    )
            elif not known:
                left.append(set_aside(self.root, folder))
        if self.groups is not None:
            self.groups.sweep(unquote(folder.name) for folder in self._folders() if held(folder))
        for folder in self.root.glob(".*"):
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < time.time() - STALE_AFTER_S and not held(folder):
                    left.append(folder)
        if left:
            threading.Thread(target=clear_away, args=(left,), daemon=True).start()

    def _restore_volumes(self, folder: Path, planned: Mapping[str, Any]) -> None:
        """Mount a gang's volumes if they are not; one whose are gone is lost, however it ended."""
        known = {
            each["name"]: Volume(each["image"], each["carried"])
            for each in planned["processes"]
            if each.get("volume")  # supervisors of earlier versions have none
        }
        if known and not volumes.restore(folder, known) and not held(folder):
            for name in known:
                (folder / f"exit-{name}.json").unlink(missing_ok=True)

    def _claims(self) -> dict[str, Claim]:
        """Return the claims of the gangs that run; those that ended are dropped."""
        for name in [name for name in self.claims if not runs(self.folder(name))]:
            del self.claims[name]
        return self.claims
