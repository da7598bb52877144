"""From a gang's spec to the plan that its supervisor carries out; pure, and it can be printed."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloche.engine import SOCKET_VARIABLE, EngineError, GangSpec, Input, Mount, ProcessSpec
from cloche.engine.local.supervisor import filter as system_calls
from cloche.engine.local.supervisor.descriptors import (
    ENVIRON_FD,
    FILTER_FD,
    LISTENING_FD,
    READY,
    STATUS_FD,
    USERNS_FD,
)
from cloche.engine.local.supervisor.plan import GangPlan, PlannedBounds, PlannedProcess
from cloche.engine.local.supervisor.version import VERSION

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
# What root may do in a container on AWS, as far as a user namespace can grant it.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SETFCAP",
    "CAP_SYS_CHROOT",
)
# The sandbox's first step: says that it stands, waits for the word, leaves no trace of itself
# (descriptors, shell variables) and becomes the command. $0 is the command's name.
STANDS = (
    'command -v "$0" >/dev/null || { echo "$0: command not found" >&2; exit 127; }; '
    f'echo "{READY.decode()}"; read -r word || exit 125; '
)
STARTER = STANDS + f'exec "$@" </dev/null {USERNS_FD}<&-'
# The same in bash, which takes the environment from a descriptor: everybody on the machine can
# read a command line. What bash would not take as it is, or act on, goes by env(1).
BASH = "/bin/bash"
BY_DESCRIPTOR = Path(BASH).exists() and hasattr(os, "memfd_create")
OWN = (  # patterns of bash's own variables, the loader's, the locale's, and of the starter's
    "_|__cloche_*|BASH*|COLUMNS|DIRSTACK|EPOCH*|EUID|FUNCNAME|GROUPS|HISTCMD|IFS|LANG*|LC_*|LD_*|"
    "LINENO|LINES|MAPFILE|OLDPWD|OPT*|PIPESTATUS|POSIX*|PPID|PWD|RANDOM|REPLY|SECONDS|SHELLOPTS|"
    "SHLVL|SRANDOM|TMOUT|UID|[!A-Za-z_]*|*[!A-Za-z0-9_]*"
)
BASH_STARTER = STANDS + (
    "unset word PWD OLDPWD; LC_ALL=C; __cloche_odd=(-u _ -u SHLVL); "
    f'while IFS= read -r -d "" __cloche_next <&{ENVIRON_FD}; do case "${{__cloche_next%%=*}}" in '
    f'{OWN}) __cloche_odd+=("$__cloche_next");; *) export "$__cloche_next";; esac; done; '
    f'exec /usr/bin/env "${{__cloche_odd[@]}}" "$@" </dev/null {USERNS_FD}<&- {ENVIRON_FD}<&-'
)
UPPER, WORK = "upper", "work"  # of an overlay's changes: they themselves, and the kernel's own
FILES_PER_MIB = 64  # as many inodes as ext4 makes on a disk of that size
PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the probe found: how far isolation goes here, and with what."""

    isolation: Literal["full", "paths"]
    bwrap: tuple[tuple[str, Path], ...] = ()  # name below the neutral place -> what must be there
    program: str = ""  # bwrap's path; with `user`: below the neutral place
    user: int | None = None
    place: str = "/mnt"  # any folder that exists; in the supervisor's own mounts it is ours
    system: tuple[tuple[str, str, str], ...] = ()  # bubblewrap's arguments for /usr, /lib, …
    advice: tuple[str, ...] = ()  # what to change on this machine for full isolation


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system that is mounted at a host's private folder."""

    image: str  # in the run directory
    carried: Mapping[str, str] = field(default_factory=dict)  # name in it -> where it is seen, too


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What a process, with all that it starts, may have; 0: no bound."""

    memory_mib: int = 0
    processes: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)  # control group's folders
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a gang counts for while it runs."""

    cpus: float
    memory_mib: int
    background: bool = False


def plan(
    gang: GangSpec,
    folder: Path,
    machine: Machine,
    ports: tuple[int, ...],
    claim: Claim,
    bounds: Mapping[str, ResourceLimits],
) -> GangPlan:
    """Return the plan for a gang whose run directory is `folder`; bounds: by process."""
    check(gang)
    places = MountPoints(machine)
    processes = [
        sandboxed(gang, process, folder, machine, places, bounds[process.name])
        for process in gang.processes
    ]
    return GangPlan(
        version=VERSION,
        gang=gang.name,
        sandboxed=True,
        processes=processes,
        ports=list(ports if gang.egress else ()),
        user=machine.user,
        place=machine.place,
        sources=places.sources,
        mapped=sorted(places.mapped),
        max_run_s=gang.max_run_s,
        stop_grace_s=gang.stop_grace_s,
        cpus=claim.cpus,
        memory_mib=claim.memory_mib,
        background=claim.background,
    )


def check(gang: GangSpec) -> None:
    """EngineError when a spec can't be run; it says what is wrong."""
    names = [process.name for process in gang.processes]
    if not names or len(set(names)) != len(names):
        raise EngineError(f"{gang.name}: needs processes with distinct names, not {names}")
    for process in gang.processes:
        if not HOST_NAME.fullmatch(process.name):
            raise EngineError(f"{process.name!r} is not a host name")
        if not process.argv:
            raise EngineError(f"{process.name}: argv is empty")
        for mount in process.mounts:
            if not mount.target.startswith("/"):
                raise EngineError(f"{process.name}: the mount target {mount.target!r} is relative")
            source = path_of(mount.source)
            if not source.exists():
                raise EngineError(f"{process.name}: {source} (for {mount.target}) is missing")
            for below in lower(mount) if mount.mode == "overlay" else ():
                if not below.is_dir():
                    raise EngineError(f"{process.name}: {below} is not a folder to overlay")


class MountPoints:
    """Where the sandbox's user finds what is mounted: in a neutral folder if we are root."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.sources: dict[str, str] = {}
        self.mapped: set[str] = set()
        self.names: dict[tuple[str, bool], str] = {}
        if machine.user is not None:
            for name, path in machine.bwrap:
                self.sources[name] = str(path)

    def find(self, path: Path, *, mapped: bool = False) -> str:
        """Return the path of `path` for the sandbox's user."""
        if self.machine.user is None:
            return str(path)
        key = (str(path), mapped)
        if key not in self.names:
            name = str(len(self.names))
            self.names[key] = name
            self.sources[name] = str(path)
            if mapped:
                self.mapped.add(name)
        return f"{self.machine.place}/{self.names[key]}"


def sandboxed(
    gang: GangSpec,
    process: ProcessSpec,
    folder: Path,
    machine: Machine,
    places: MountPoints,
    bounds: ResourceLimits,
) -> PlannedProcess:
    """Return one process with its bubblewrap command."""
    env = environment(process)
    program = machine.program if machine.user is None else f"{machine.place}/{machine.program}"
    identity = ["--unshare-user", "--uid", "0", "--gid", "0"]
    if machine.user is not None:
        identity = ["--userns", str(USERNS_FD)]
    argv = [program, *identity, "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    argv += ["--hostname", process.name, "--new-session", "--die-with-parent"]
    argv += ["--json-status-fd", str(STATUS_FD)]
    if system_calls.program() is not None:
        argv += ["--seccomp", str(FILTER_FD)]
    for capability in CAPABILITIES:
        argv += ["--cap-add", capability]
    for name in ("/etc", "/var", "/run", "/opt"):
        argv += ["--perms", "0755", "--dir", name]
    argv += [part for option in machine.system for part in option]
    own = places.find(host_folder(folder, process.name))
    for name in etc_files(gang, process):
        argv += ["--bind", f"{own}/etc/{name}", f"/etc/{name}"]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    if bounds.memory_mib:  # half of it, as where nothing says otherwise
        size = str(bounds.memory_mib * 2**20 // 2)
        argv += ["--perms", "1777", "--size", size, "--tmpfs", "/dev/shm"]
    argv += ["--bind", f"{own}/tmp", "/tmp", "--bind", f"{own}/tmp", "/var/tmp"]
    argv += ["--bind", f"{own}/root", "/root"]
    argv += [part for option in mounts(process, own, places) for part in option]
    argv += [
        "--dir",
        env["HOME"],
        "--chdir",
        process.workdir,
        "--clearenv",
        "--setenv",
        "PATH",
        env["PATH"],
    ]
    argv += ["--", *command(process.argv, env)]
    written = [places.find(path) for path in written_beside(process, bounds.volume)]
    return PlannedProcess(
        name=process.name,
        argv=argv,
        env={},
        environ=settings(env) if BY_DESCRIPTOR else [],
        cwd="/",
        log=str(log_of(process, folder)),
        sandboxed=True,
        **planned_bounds(process, bounds, own, written),
    )


def written_beside(process: ProcessSpec, volume: Volume | None) -> list[Path]:
    """Return the folders that a process may write and that are not in its volume."""
    carried = set() if volume is None else set(volume.carried.values())
    written = [mount.source for mount in process.mounts if mount.mode == "rw"]
    written = [source for source in written if source.place not in carried]
    written += [mount.changes for mount in process.mounts if mount.changes]
    return [path_of(source) for source in written]


def planned_bounds(
    process: ProcessSpec, bounds: ResourceLimits, own: str, written: list[str]
) -> PlannedBounds:
    """Return the bounds for the plan; `own`: the host's folder, `written`: others."""
    volume = bounds.volume
    return PlannedBounds(
        groups=dict(bounds.groups),
        memory_mib=bounds.memory_mib,
        processes=bounds.processes,
        disk_mib=process.disk_mib,
        files=process.disk_mib * FILES_PER_MIB,
        log_mib=process.log_mib,
        writable=[own, *written] if volume is None else written,
        volume="" if volume is None else own,
        image="" if volume is None else volume.image,
        carried={} if volume is None else dict(volume.carried),
    )


def mounts(process: ProcessSpec, own: str, places: MountPoints) -> Iterator[tuple[str, ...]]:
    """Yield bubblewrap's options for the spec's mounts, outer ones first."""
    numbered = sorted(enumerate(process.mounts), key=lambda item: item[1].target.count("/"))
    for number, mount in numbered:
        if mount.mode == "rw":
            yield ("--bind", places.find(path_of(mount.source)), mount.target)
        elif mount.mode == "ro":
            yield ("--ro-bind", places.find(path_of(mount.source), mapped=True), mount.target)
        else:
            kept = mount.changes
            changes = f"{own}/overlay-{number}" if kept is None else places.find(path_of(kept))
            for below in lower(mount):
                yield ("--overlay-src", places.find(below, mapped=True))
            yield ("--overlay", f"{changes}/{UPPER}", f"{changes}/{WORK}", mount.target)


def command(argv: tuple[str, ...], env: Mapping[str, str]) -> list[str]:
    """Return what runs in the sandbox: the command behind the starter, with exactly `env`.

    Never by a plain shell alone: it drops variables that it can't spell (SM_HP_LEARNING-RATE).
    """
    if BY_DESCRIPTOR:
        return [BASH, "-p", "-c", BASH_STARTER, argv[0], *argv]
    return ["/bin/sh", "-c", STARTER, argv[0], "/usr/bin/env", "-i", *settings(env), *argv]


def settings(env: Mapping[str, str]) -> list[str]:
    """Return an environment as env(1) takes it."""
    return [f"{name}={value}" for name, value in sorted(env.items())]


def environment(process: ProcessSpec) -> dict[str, str]:
    """Return the process's whole environment."""
    given = {SOCKET_VARIABLE: str(LISTENING_FD)} if process.serves else {}
    own = {"PATH": DEFAULT_PATH, "HOME": "/root", "HOSTNAME": process.name}
    return own | dict(process.env) | given


def path_of(staged: Input) -> Path:
    """Return where what was staged lies: on this machine it stays where it is."""
    return Path(staged.place)


def log_of(process: ProcessSpec, folder: Path) -> Path:
    """Return where a process's log lies: where it was staged, or in the run directory."""
    return folder / f"log-{process.name}" if process.log is None else path_of(process.log)


def lower(mount: Mount) -> list[Path]:
    """Return the folders that lie below an overlay, lowest first."""
    return [path_of(mount.source), *(path_of(layer) / UPPER for layer in mount.layers)]


def host_folder(folder: Path, name: str) -> Path:
    """Return the folder that holds a host's private /tmp, home, /etc files and overlays."""
    return folder / f"host-{name}"


def etc_files(gang: GangSpec, process: ProcessSpec) -> dict[str, str]:
    """Return the host's own files of /etc: name -> text."""
    hosts = ["127.0.0.1\tlocalhost", "::1\tip6-localhost"]
    hosts += [f"127.0.1.{n}\t{other.name}" for n, other in enumerate(gang.processes, 1)]
    return {
        "hosts": "\n".join(hosts) + "\n",
        "hostname": process.name + "\n",
        "passwd": PASSWD,
        "group": GROUP,
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "# The way out is the platform's proxy, which resolves names itself.\n",
    }
