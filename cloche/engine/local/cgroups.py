"""Control groups for sandboxes: of version 1 or 2, whichever is mounted and may be written.

    <the server's own group>/cloche-<digest of the engine's root>/<digest of the gang>-<host>

The upper one bounds all sandboxes together, so that however many there are the server has memory
and time to go on. Where the kernel or the server's rights give none, the supervisors watch.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloche.engine import Usage
from cloche.engine.local.sandbox import ResourceLimits

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
KEPT = {"memory": "memory", "pids": "processes"}  # what a controller bounds
MIB = 2**20
# Of one CPU, and of what is not counted: with the kernel's least, beside a busy job, starting and
# even dying takes minutes.
SHARES, LEAST_SHARES = 1024, 64  # version 1
WEIGHT, LEAST_WEIGHT = 100, 6  # version 2
# What all sandboxes together weigh against any other process of the machine: as that many times
# their CPUs. A quiet machine is theirs; a server beside busy ones gets its part.
TOGETHER = 4
STALE_AFTER_S = 60.0
TRIES = 5
OWN_LEAF = "cloche-server"  # version 2: a group with controllers holds groups or processes


def own_groups(mounts: str, groups: str) -> dict[str, Path]:
    """Return our own group's folder by controller ("": version 2), from what /proc/self says in
    `mountinfo` and `cgroup`.
    """
    mounted: dict[str, tuple[str, str]] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, place = left.split()[3:5]
        kind, _source, options = right.split()[:3]
        if kind == "cgroup2":
            mounted.setdefault("", (root, place))
        elif kind == "cgroup":
            for name in options.split(","):
                mounted.setdefault(name, (root, place))
    own: dict[str, Path] = {}
    for line in groups.splitlines():
        _number, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounted:
                root, place = mounted[name]
                below = path.removeprefix(root) if path.startswith(root) else path
                own[name] = Path(place, below.strip("/"))
    return own


def write(path: Path, value: object) -> None:
    """Set a value of a group."""
    path.write_text(str(value))


def memory_limit_mib(own: Mapping[str, Path]) -> int | None:
    """Return what our own group may hold, where it is a bound (in a container)."""
    places = [own[name] for name in ("memory", "") if name in own]
    for place in places:
        for name in ("memory.limit_in_bytes", "memory.max"):
            with suppress(OSError, ValueError):
                return int((place / name).read_text()) // MIB
    return None


def read_own() -> dict[str, Path]:
    """Return our own group's folder by controller; empty where there are none."""
    try:
        proc = Path("/proc/self")
        return own_groups((proc / "mountinfo").read_text(), (proc / "cgroup").read_text())
    except OSError:
        return {}


@dataclass(frozen=True, slots=True)
class Groups:
    """Makes, reads and removes the groups of one engine."""

    tops: Mapping[str, Path]  # the engine's group by controller
    version: int
    machine: ResourceLimits  # what all sandboxes may have together
    cpus: int

    @classmethod
    def found(cls, root: Path, machine: ResourceLimits, cpus: int) -> "Groups | None":
        """Return the groups for the engine at `root`; None: nothing may be written."""
        own, name = read_own(), f"cloche-{digest(str(root))}"
        version = 1 if "memory" in own or "pids" in own else 2
        try:
            if version == 2:
                tops = dict.fromkeys(("memory", "pids", "cpu"), delegated(own[""]) / name)
            else:
                places = {each: own[each] for each in CONTROLLERS if each in own}
                tops = {k: v / name for k, v in places.items() if os.access(v, os.W_OK)}
            groups = cls(tops, version, machine, cpus)
            groups.make_top()
        except (OSError, KeyError):
            return None
        groups.remove_top()
        return groups if tops else None

    def make_top(self) -> None:
        """Make the group of all sandboxes together."""
        for folder in set(self.tops.values()):
            folder.mkdir(exist_ok=True)
            if self.version == 2:
                write(folder / "cgroup.subtree_control", "+memory +pids +cpu")
        self.bound(self.tops, self.machine, self.cpus * TOGETHER)

    def make(self, gang: str, name: str, bounds: ResourceLimits, cpus: int) -> dict[str, str]:
        """Make the group of one process; return its folders by controller.

        cpus: 0 gives it a sixteenth of one beside others that are busy.
        """
        for _ in range(TRIES - 1):
            with suppress(FileNotFoundError):  # another engine swept the upper one, still empty
                return self._make(gang, name, bounds, cpus)
        return self._make(gang, name, bounds, cpus)

    def _make(self, gang: str, name: str, bounds: ResourceLimits, cpus: int) -> dict[str, str]:
        self.make_top()
        folders = {k: top / f"{digest(gang)}-{name}" for k, top in self.tops.items()}
        for folder in set(folders.values()):
            folder.mkdir(exist_ok=True)
        self.bound(folders, bounds, cpus)
        return {controller: str(folder) for controller, folder in folders.items()}

    def bound(self, folders: Mapping[str, Path], bounds: ResourceLimits, cpus: int) -> None:
        """Set a group's bounds."""
        memory, pids, cpu = (folders.get(name) for name in ("memory", "pids", "cpu"))
        if memory is not None and bounds.memory_mib:
            size = bounds.memory_mib * MIB
            if self.version == 2:
                write(memory / "memory.max", size)
                with suppress(OSError):  # a kernel that does not count swap
                    write(memory / "memory.swap.max", 0)
            else:
                write(memory / "memory.limit_in_bytes", size)
                with suppress(OSError):
                    write(memory / "memory.memsw.limit_in_bytes", size)
        if pids is not None and bounds.processes:
            write(pids / "pids.max", bounds.processes)
        if cpu is not None and self.version == 2:
            write(cpu / "cpu.weight", min(10_000, max(LEAST_WEIGHT, WEIGHT * cpus)))
        elif cpu is not None:
            write(cpu / "cpu.shares", max(LEAST_SHARES, SHARES * cpus))

    def sweep(self, gangs: Iterable[str]) -> None:
        """Remove what is left of gangs that do not run; `gangs`: those that do."""
        kept = {digest(gang) for gang in gangs}
        for top in set(self.tops.values()):
            for folder in groups_in(top):
                if folder.name.partition("-")[0] not in kept:
                    with suppress(OSError):
                        folder.rmdir()
        self.remove_top()
        self.sweep_others()

    def sweep_others(self) -> None:
        """Remove what engines have left that nobody starts any more: a home that was removed.

        A group with processes can't be removed, and one that waits for its first is young.
        """
        before = time.time() - STALE_AFTER_S
        for parent in {top.parent for top in self.tops.values()}:
            for top in parent.glob("cloche-*/"):
                for folder in (*groups_in(top), top):
                    with suppress(OSError):
                        if folder.name != OWN_LEAF and folder.stat().st_mtime < before:
                            folder.rmdir()

    def remove_top(self) -> None:
        """Remove the group of all sandboxes together, if there are none."""
        for top in set(self.tops.values()):
            with suppress(OSError):
                top.rmdir()


def told(groups: Groups | None, lack: str | None) -> str:
    """Say in a sentence by what means each job's part of the machine is bounded.

    lack: why it has no volume for its files; None: it has.
    """
    controllers = set() if groups is None else set(groups.tops)
    kept = [what for name, what in KEPT.items() if name in controllers]
    watched = [what for name, what in KEPT.items() if name not in controllers]
    watched += [] if lack is None else ["disk"]
    means = [f"{' and '.join(kept)} by control groups"] if kept else []
    means += ["disk by volumes"] if lack is None else []
    means += [f"{' and '.join(watched)} by watching"] if watched else []
    return f"Bounds: {'; '.join(means)}{f' ({lack})' if lack else ''}."


def delegated(own: Path) -> Path:
    """Return our group of version 2 once groups below it can have controllers.

    A group with controllers may hold no processes, so we go one down; if it holds others than us
    it is not ours to arrange.
    """
    if own.name == OWN_LEAF:
        return own.parent
    wanted = {"memory", "pids"}
    if not wanted <= set((own / "cgroup.controllers").read_text().split()):
        raise OSError("no controllers")
    if wanted <= set((own / "cgroup.subtree_control").read_text().split()):
        return own
    if set((own / "cgroup.procs").read_text().split()) != {str(os.getpid())}:
        raise OSError("not ours alone")
    (own / OWN_LEAF).mkdir(exist_ok=True)
    write(own / OWN_LEAF / "cgroup.procs", os.getpid())
    write(own / "cgroup.subtree_control", "+memory +pids +cpu")
    return own


def digest(text: str) -> str:
    """Return a short name for a gang or an engine."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def groups_in(top: Path) -> list[Path]:
    """Return the groups below one, which other servers make and remove meanwhile."""
    try:
        return [folder for folder in top.iterdir() if folder.is_dir()]
    except OSError:
        return []


def usage(folders: Mapping[str, str]) -> Usage | None:
    """Return what a group's processes have used and hold; None where the kernel does not tell."""
    memory = folders.get("memory")
    if memory is None:
        return None
    held, used = fields(f"{memory}/memory.stat"), None
    if "cpuacct" in folders:
        with suppress(OSError):
            used = int(Path(folders["cpuacct"], "cpuacct.usage").read_text()) / 1e9
    else:
        microseconds = fields(f"{memory}/cpu.stat").get("usage_usec")
        used = None if microseconds is None else microseconds / 1e6
    if used is None or not held:
        return None
    names = (("total_rss", "total_shmem"), ("rss", "shmem"), ("anon", "shmem"))
    for private, shared in names:
        if private in held:
            return Usage(used, (held[private] + held.get(shared, 0)) / MIB)
    return None


def fields(path: str) -> dict[str, int]:
    """Return a file of lines `name number`; empty when it is not there."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
