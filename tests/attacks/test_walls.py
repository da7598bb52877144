"""Attempts of a job to get through the walls of its sandbox, or to take more than it was given.

What it opened, holds or changed is read from outside: /proc, the machine's files, its neighbours.
"""

from __future__ import annotations

import json
import os
import stat
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloche.engine import GangSpec, Mount, Seen
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.loop_devices import attached
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.sandbox import system_calls
from cloche.testing.engine_lab import Lab, unique, wait_until
from cloche.testing.fork_lab import Stage
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
pytestmark = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
MIB = 1 << 20

# ---------------------------------------------------------------- the kernel behind the namespaces

CALL = """
import ctypes, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
def call(on_x86, on_arm, *arguments):
    return libc.syscall(on_x86 if x86 else on_arm, *arguments)
kept = []
def family(*arguments):
    try:
        kept.append(socket.socket(*arguments))
        if arguments[0] == 16: kept[-1].bind((0, 0))
    except OSError as error: print(error.strerror)
def apart(how):
    reads, writes = os.pipe()
    if os.fork() == 0:
        how(); os.write(writes, b"x"); time.sleep(90); os._exit(0)
    os.read(reads, 1)
"""
END = "\nprint('tried', flush=True); time.sleep(90)\n"
NEW_USER = 0x10000000
# name -> what to try, and how it shows from outside
OPENINGS = {
    "vsock": ("family(40, socket.SOCK_STREAM)", "VSOCK"),
    "crypto": ("family(38, socket.SOCK_SEQPACKET)", "ALG"),
    "netfilter": ("family(16, socket.SOCK_RAW, 12)", "netlink 12"),
    "audit": ("family(16, socket.SOCK_RAW, 9)", "netlink 9"),
    "io_uring": ("call(425, 425, 8, (ctypes.c_char * 128)())", "io_uring"),
    "bpf": ("call(321, 280, 0, struct.pack('5I108x', 2, 4, 8, 1, 0), 128)", "bpf"),
    "perf": ("call(298, 241, struct.pack('IIQ112x', 1, 128, 0), 0, -1, -1, 0)", "perf_event"),
    "userfaultfd": ("call(323, 282, 1)", "userfaultfd"),
    "keyring": ("call(248, 217, b'user', b'walls', b'secret', 6, -3)", "key"),
    "unshare": (f"apart(lambda: libc.unshare({NEW_USER}))", "user namespace"),
    "clone": (f"apart(lambda: call(56, 220, {NEW_USER} | 17, 0, 0, 0, 0))", "user namespace"),
    "clone3": (
        f"apart(lambda: call(435, 435, struct.pack('11Q', {NEW_USER}, 0, 0, 0, 17, *[0] * 6), 88))",
        "user namespace",
    ),
}
AT_0E393EC = (
    "At 0e393ec there was no filter: test_without_the_filter shows what the kernel then gives"
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with local_lab(tmp_path, SANDBOXED) as lab:
        yield lab


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    """Where scripts are children of a fork server."""
    stage = Stage(lab)
    yield stage
    assert isinstance(lab.engine, LocalEngine)
    for server in lab.engine.fork_servers.servers.values():
        server.end()


def members(lab: Lab, gang: str = "gang") -> list[int]:
    """Return the processes that are in a sandbox, whoever started them."""
    assert isinstance(lab.engine, LocalEngine)
    state = json.loads((lab.engine.folder(gang) / "state.json").read_text())
    (process,) = state["processes"].values()
    namespace = os.readlink(f"/proc/{process['group']}/ns/pid")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                found.append(int(name))
        except OSError:
            continue
    return found


def keys() -> int:
    """Return how many keys the kernel holds for the user that sandboxes are, outside."""
    user = 64000 if os.geteuid() == 0 else os.geteuid()
    for line in Path("/proc/key-users").read_text().splitlines():
        uid, _, numbers = line.partition(":")
        if int(uid) == user:
            return int(numbers.split()[1].partition("/")[0])
    return 0


def shown(lab: Lab, keys_before: int, gang: str = "gang") -> set[str]:
    """Return what processes of a sandbox are seen to hold that none should have."""
    pids, found = members(lab, gang), set[str]()
    assert len(pids) > 1
    users = {os.readlink(f"/proc/{pid}/ns/user") for pid in pids}
    if len(users) > 1:
        found.add("user namespace")
    if keys() > keys_before:
        found.add("key")
    for pid in pids:
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            kind = os.readlink(path)
            if kind.startswith("anon_inode:"):
                found.add(kind.removeprefix("anon_inode:").strip("[]").split("-")[0])
            elif kind.startswith("socket:"):
                protocol = os.getxattr(path, "system.sockprotoname").strip(b"\0").decode()
                found.add(protocol.removeprefix("AF_"))
        with open(f"/proc/{pid}/net/netlink") as file:
            found |= {f"netlink {line.split()[1]}" for line in file.readlines()[1:] if own(line)}
    return found


def own(line: str) -> bool:
    """Tell whether a netlink socket is a process's (the kernel's have the port 0)."""
    return line.split()[2] != "0"


def tried(lab: Lab, attempt: str) -> set[str]:
    """Have a job try something; return what it is then seen to hold."""
    before = keys()
    lab.place(GangSpec(name="gang", processes=(lab.python("h", CALL + attempt + END),)))
    wait_until(lambda: lab.said("h", "tried"))
    return shown(lab, before)


@pytest.mark.control(AT_0E393EC)
@pytest.mark.parametrize("name", OPENINGS)
def test_a_job_opens(lab: Lab, name: str) -> None:
    attempt, sign = OPENINGS[name]
    assert sign not in tried(lab, attempt)


def test_without_the_filter(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in one job: the kernel's own settings may refuse some, but never most."""
    monkeypatch.setattr(system_calls, "program", lambda: None)
    attempts = "\n".join(attempt for attempt, _ in OPENINGS.values())
    found = tried(lab, attempts)
    wanted = {sign for _, sign in OPENINGS.values()}
    assert {"user namespace", "key"} <= found
    assert len(wanted & found) >= len(wanted) // 2, found


@pytest.mark.control(
    "At 0e393ec children of fork servers had no filter, as test_without_the_filter"
)
def test_a_child_of_a_fork_server_opens(stage: Stage) -> None:
    """It enters the sandbox by setns, where bubblewrap's filter is not."""
    stage.warm()
    attempts = "\n".join(attempt for attempt, _ in OPENINGS.values())
    before = keys()
    stage.lab.place(stage.spec(CALL + attempts + END, "opens"))
    wait_until(lambda: stage.lab.said("opens", "tried"), 60)
    assert stage.log("opens")[0] == "hired"
    assert not shown(stage.lab, before, "opens") & {sign for _, sign in OPENINGS.values()}
    for pid in members(stage.lab, "opens"):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status


INT_80 = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (i386: getpid); int 0x80; ret
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print("pid", call() > 0)
"""
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64's second door")


@x86
@pytest.mark.control("test_without_the_filter_other_architectures: the call is served")
def test_system_calls_of_another_architecture(lab: Lab) -> None:
    """Numbers that mean other calls than those the filter lists: the process ends (SIGSYS)."""
    assert lab.run(lab.python("h", INT_80))["h"].exit_code == -31


@x86
def test_without_the_filter_other_architectures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_calls, "program", lambda: None)
    assert lab.run(lab.python("h", INT_80))["h"].exit_code == 0


# ---------------------------------------------------------------- the machine's files and processes

SECRET = "the machine's secret"
# Each has {secret} for the path of a file of the machine; what it finds it writes to /out/found.
REACHES = {
    "plainly": "found(open({secret!r}).read())",
    "by /proc": """
for pid in [name for name in os.listdir("/proc") if name.isdigit()] + ["1", "self"]:
    for way in ("root", "cwd"):
        attempt(lambda: found(open(f"/proc/{{pid}}/{{way}}" + {secret!r}).read()))
    for number in range(64):
        way = f"/proc/{{pid}}/fd/{{number}}/" + "../" * 20 + {secret!r}
        attempt(lambda: found(open(way).read()))
""",
    "by a descriptor left open": """
for number in range(64):
    way = "../" * 20 + {secret!r}.lstrip("/")
    attempt(lambda: found(os.read(os.open(way, os.O_RDONLY, dir_fd=number), 99).decode()))
""",
    "by a mount": """
libc.mkdir(b"/m", 0o777)
for source in (b"/dev/vda", b"/dev/sda", b"/dev/root", b"/proc/1/root"):
    for kind, flags in ((b"ext4", 0), (None, 4096)):
        libc.mount(source, b"/m", kind, flags, None)
        attempt(lambda: found(open("/m" + {secret!r}).read()))
""",
    "by a file handle": """
root = struct.pack("IiQ", 8, 1, 2)  # the root of an ext4: inode 2
for anchor in ("/", "/out", "/usr", "/etc/hostname"):
    fd = os.open(anchor, os.O_RDONLY)
    got = libc.syscall(304 if x86 else 265, fd, root, os.O_RDONLY)
    way = {secret!r}.lstrip("/")
    attempt(lambda: found(os.read(os.open(way, os.O_RDONLY, dir_fd=got), 99).decode()))
""",
    "by chroot": """
os.mkdir("/tmp/c"); up = os.open("/", os.O_RDONLY); os.chroot("/tmp/c"); os.fchdir(up)
for _ in range(30): os.chdir("..")
os.chroot("."); found(open({secret!r}).read())
""",
    "by a device": """
for major in (8, 252, 253, 254, 259):
    path = f"/out/disk-{{major}}"
    attempt(lambda: os.mknod(path, 0o60666, os.makedev(major, 0)))
    attempt(lambda: found(open(path, "rb").read(4096).hex()))
attempt(lambda: os.mknod("/out/mem", 0o20666, os.makedev(1, 1)))
""",
    "as another user": """
for uid in (1, 1000, 65534, 64000, 65535):
    if os.fork() == 0:
        attempt(lambda: os.setresuid(uid, uid, uid))
        attempt(lambda: found(open({secret!r}).read()))
        os._exit(0)
    os.wait()
""",
    "by the memory of others": """
for pid in set(range(2, 40)) - {{os.getpid()}}:
    if libc.ptrace(16, pid, 0, 0) == 0:
        attempt(lambda: found(open(f"/proc/{{pid}}/environ").read() + open({secret!r}).read()))
        libc.ptrace(17, pid, 0, 0)
""",
}
REACH = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
def found(text):
    with open("/out/found", "a") as file: file.write(text)
def attempt(how):
    try: how()
    except (OSError, ValueError): pass
"""


def reached(lab: Lab, how: str) -> Path:
    """Have a job try to get at a file of the machine; return the folder that it may write."""
    out = lab.folder / "out"
    out.mkdir()
    secret = lab.folder / "secret"
    secret.write_text(SECRET)
    script = REACH + textwrap.dedent(REACHES[how]).format(secret=str(secret))
    lab.run(lab.python("h", script, lab.mount(out, "/out", "rw")))
    return out


@pytest.mark.control("test_without_a_sandbox_the_secret_is_read: the same lines in a bare process")
@pytest.mark.parametrize("how", REACHES)
def test_the_machines_files(lab: Lab, how: str) -> None:
    out = reached(lab, how)
    text = (out / "found").read_text() if (out / "found").exists() else ""
    assert SECRET not in text
    if how == "by a device":
        assert text == ""
    assert not any(path.is_block_device() or path.is_char_device() for path in out.iterdir())


@pytest.mark.parametrize("how", ["plainly", "by /proc"])
def test_without_a_sandbox_the_secret_is_read(tmp_path: Path, how: str) -> None:
    with local_lab(tmp_path, reduced("for this test")) as lab:
        assert SECRET in (reached(lab, how) / "found").read_text()


@pytest.mark.control(
    "At 0e393ec such a file was the sandbox user's, too; as root it would be root's"
)
def test_a_set_user_id_file_left_behind(lab: Lab) -> None:
    """It gives whoever starts it outside nothing that matters: it is never root's."""
    out = lab.folder / "out"
    out.mkdir()
    script = "cp /bin/sh /out/sh; chown 0:0 /out/sh; chmod 6755 /out/sh"
    assert lab.run(lab.process("h", script, lab.mount(out, "/out", "rw")))["h"].exit_code == 0
    left = (out / "sh").stat()
    if os.geteuid() == 0:
        assert left.st_uid >= 64000 and left.st_gid >= 64000
    else:
        assert left.st_uid == os.geteuid()


KERNEL_FILES = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/hostname",
)
CHANGES = """
import os
for path in {paths!r}:
    try:
        with open(path, "r+") as file:
            text = file.read(); file.seek(0); file.write({value!r} or text)
    except OSError as error: print(path, error.strerror)
os.system("mkdir -p /tmp/g; mount -t cgroup -o memory x /tmp/g")
for path in ("/tmp/g", "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/rdma"):
    os.system(f"echo 1 > {{path}}/notify_on_release; echo {canary} > {{path}}/release_agent")
os.system("echo b > /proc/sysrq-trigger; unshare -Urm mount -t cgroup2 x /tmp/g")
os.system("mount -o remount,rw /proc/sys; mount -o remount,rw /usr; touch /usr/canary")
"""


def kernel_settings() -> list[str]:
    agents = sorted(Path("/sys/fs/cgroup").glob("*/release_agent"))
    return [path.read_text() for path in (*map(Path, KERNEL_FILES), *agents) if path.exists()]


@pytest.mark.control(
    "The same lines as root of the machine change it: that is what these files are for"
)
def test_the_kernels_settings(lab: Lab, canary: Path) -> None:
    """core_pattern, modprobe, release_agent: each starts a program of the writer's as root."""
    before = kernel_settings()
    script = CHANGES.format(paths=KERNEL_FILES, value=f"|/bin/touch {canary}", canary=canary)
    lab.run(lab.python("h", script))
    assert kernel_settings() == before
    assert not canary.exists()
    assert not Path("/usr/canary").exists()


KILLS = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
victims = {victims!r}
for victim in victims:
    for how in (lambda: os.kill(victim, 9), lambda: os.killpg(victim, 9),
                lambda: signal.pidfd_send_signal(os.pidfd_open(victim), 9),
                lambda: libc.ptrace(0x4206, victim, 0, 0)):
        try: how()
        except OSError as error: print(error.strerror)
"""
TO_ALL = """
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGKILL):
        try: os.kill(-1, number)
        except OSError: pass
"""


@pytest.mark.control("test_without_a_sandbox_a_neighbour_dies")
def test_neighbours_and_the_supervisor(lab: Lab) -> None:
    """Signals and ptrace, to their numbers outside and to all that can be reached."""
    neighbour, supervisor = victims(lab)
    lab.run(lab.python("h", KILLS.format(victims=[neighbour, supervisor]) + TO_ALL))
    for victim in (neighbour, supervisor):
        assert "TracerPid:\t0" in Path(f"/proc/{victim}/status").read_text()
    beside = lab.engine.see("neighbour")
    assert beside is not None and beside["n"].state == "running"


def test_without_a_sandbox_a_neighbour_dies(tmp_path: Path) -> None:
    """To its number alone: to all that can be reached would be to the machine."""
    with local_lab(tmp_path, reduced("for this test")) as lab:
        neighbour, _ = victims(lab)
        lab.run(lab.python("h", KILLS.format(victims=[neighbour])))
        wait_until(lambda: ended(lab.engine.see("neighbour")))


def ended(seen: object) -> bool:
    return isinstance(seen, dict) and seen["n"].state == "exited"


def victims(lab: Lab) -> tuple[int, int]:
    """Start a neighbour; return its process and its supervisor, as seen outside."""
    neighbour = lab.process("n", f"exec sleep {unique()}")
    lab.place(GangSpec(name="neighbour", processes=(neighbour,), background=True))
    assert isinstance(lab.engine, LocalEngine)
    state = json.loads((lab.engine.folder("neighbour") / "state.json").read_text())
    return state["processes"]["n"]["group"], state["supervisor"]


TYPES = """
import fcntl, glob, os
for path in [f"/proc/{pid}/fd/{n}" for pid in ("1", "self") for n in range(12)] + [
        "/dev/tty", "/dev/console", *glob.glob("/dev/pts/*"), *glob.glob("/dev/tty*")]:
    for flags in (os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK, os.O_RDONLY | os.O_NONBLOCK):
        try:
            fd = os.open(path, flags)
            for letter in b"echo typed\\n": fcntl.ioctl(fd, 0x5412, bytes([letter]))
            print("typed into", path)
        except OSError: pass
"""


@pytest.mark.control(
    "At 0e393ec TIOCSTI was kept off by the new session alone, now by the filter too"
)
def test_typing_into_a_terminal(lab: Lab) -> None:
    """A terminal that the job itself makes: the ioctl is refused there as well."""
    own_terminal = "import pty, os\nmain, side = pty.openpty()\nos.dup2(side, 0)\n"
    begin = "import fcntl, os, sys\nos.setsid() if os.getpid() != os.getsid(0) else None\n"
    script = begin + own_terminal + "fcntl.ioctl(0, 0x540E, 0)\n" + TYPES
    script += "print('end', flush=True)\n"
    lab.run(lab.python("h", script))
    assert lab.log("h")[-1:] == ["end"] and not any("typed into" in each for each in lab.log("h"))


# ---------------------------------------------------------------- more than it was given

HOLD = """
import os, sys, time
held = []
while True:
    held.append(b"x" * (4 * 2**20)); time.sleep(0.002)
"""
NO_BOUND = "At 0e393ec nothing bounded it: the machine's own memory, processes, disk did"
FILL = """
import os, time
n = 0
while n < 400:
    try:
        with open(f"{folder}/{n}", "wb") as file: file.write(os.urandom(2**20))
    except OSError as error:
        print(error.strerror, flush=True); break
    n += 1; time.sleep(0.01)
else:
    time.sleep(60)
"""
WAYS = [pytest.param(True, id="by groups"), pytest.param(False, id="watched")]


@pytest.fixture
def bounded(tmp_path: Path, grouped: bool) -> Iterator[Lab]:
    with local_lab(tmp_path, SANDBOXED, grouped=grouped, mounted=grouped) as lab:
        assert isinstance(lab.engine, LocalEngine)
        if grouped and lab.engine.groups is None:
            pytest.skip("no control groups may be written here")
        neighbour = lab.process("n", "sleep 99")
        lab.place(GangSpec(name="neighbour", processes=(neighbour,), background=True))
        yield lab
        beside = lab.engine.see("neighbour")
        assert beside is not None and beside["n"].state == "running"


def grabs(lab: Lab, script: str, *mounts: Mount, **bounds: int) -> Seen:
    """Run a job that takes what it gets; return how it ended."""
    process = replace(lab.python("h", script, *mounts), **bounds)  # type: ignore[arg-type]
    lab.place(GangSpec(name="gang", processes=(process,), background=True))
    return lab.finished()["h"]


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", WAYS)
def test_a_memory_bomb(bounded: Lab) -> None:
    seen = grabs(bounded, HOLD, memory_mib=200)
    assert (seen.exit_code, seen.reason) == (-9, "OutOfMemory")


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", WAYS)
def test_a_memory_bomb_in_another_session(bounded: Lab) -> None:
    """Whose parent has gone, whose name is another's."""
    script = "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    script += textwrap.indent(HOLD, "        ") + "\nimport time; time.sleep(60)"
    process = replace(bounded.python("h", script), memory_mib=200)
    bounded.place(GangSpec(name="gang", processes=(process,), background=True, max_run_s=20))

    def smaller() -> bool:
        """It was ended, or the process in it that held the memory."""
        if any(line.startswith("[cloche] OutOfMemory") for line in bounded.log("h")):
            return True
        resident = sum(rss(pid) for pid in members(bounded))
        assert resident < 500 * MIB
        assert isinstance(bounded.engine, LocalEngine)
        return kills(bounded) > 0

    wait_until(smaller)


def rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def kills(lab: Lab) -> int:
    """Return how often the kernel ended a process of the job's group."""
    assert isinstance(lab.engine, LocalEngine)
    plan = json.loads((lab.engine.folder("gang") / "plan.json").read_text())
    folder = plan["processes"][0]["groups"].get("memory")
    for name in ("memory.oom_control", "memory.events") if folder else ():
        path = Path(folder, name)
        if path.exists():
            fields = dict(line.split() for line in path.read_text().splitlines())
            return int(fields.get("oom_kill", 0))
    return 0


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", WAYS)
@pytest.mark.parametrize("folder", ["/dev", "/dev/shm", "/run"])
def test_memory_taken_by_files(bounded: Lab, folder: str) -> None:
    """File systems in memory are the job's memory; /dev/shm has half of it."""
    seen = grabs(bounded, FILL.replace("{folder}", folder), memory_mib=200)
    if folder == "/dev/shm" and seen.reason is None:
        assert bounded.log("h") == ["No space left on device"]
    else:
        assert seen.reason == "OutOfMemory"


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", WAYS)
def test_a_fork_bomb(bounded: Lab) -> None:
    """It never has many more than its bound, and goes when its gang goes."""
    script = """
        import os, time
        print("up", flush=True)
        while True:
            try:
                if os.fork() == 0: time.sleep(0.5)
            except OSError: time.sleep(0.1)
    """
    process = replace(bounded.python("h", script), processes=100)
    gang = GangSpec(name="gang", processes=(process,), background=True, max_run_s=3, stop_grace_s=0)
    bounded.place(gang)
    wait_until(lambda: bounded.said("h", "up"))
    most = 0

    def over() -> bool:
        nonlocal most
        seen = bounded.engine.see("gang")
        most = max(most, len(members(bounded)) if seen and seen["h"].state == "running" else 0)
        return seen is not None and seen["h"].state == "exited"

    try:
        wait_until(over)
    except FileNotFoundError:  # it ended between two looks
        bounded.finished()
    assert most <= 100 * 4 + 8


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", [WAYS[1]])
@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/root", "/opt/ml/model", "/opt/in"])
def test_a_full_disk(bounded: Lab, folder: str) -> None:
    """Private folders, what is uploaded later, and what was changed of the input."""
    model, given = bounded.folder / "model", bounded.folder / "in"
    model.mkdir()
    given.mkdir()
    mounts = (
        bounded.mount(model, "/opt/ml/model", "rw"),
        bounded.mount(given, "/opt/in", "overlay"),
    )
    seen = grabs(bounded, FILL.replace("{folder}", folder), *mounts, disk_mib=48)
    assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
    assert taken(bounded.folder) < 250 * MIB


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", [WAYS[0]])
@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/root", "/opt/ml/model", "/opt/in"])
def test_a_full_volume(bounded: Lab, folder: str) -> None:
    """There the kernel refuses what is more, and the disk has lost no more than that."""
    needs_volumes(bounded)
    model, given = bounded.folder / "model", bounded.folder / "in"
    model.mkdir()
    given.mkdir()
    own = bounded.mount(model, "/opt/ml/model", "rw", volume=True)
    mounts = (own, bounded.mount(given, "/opt/in", "overlay"))
    quick = FILL.replace("{folder}", folder).replace("time.sleep(0.01)", "pass")
    seen = grabs(bounded, quick, *mounts, disk_mib=48)
    assert (seen.exit_code, seen.reason) in ((0, None), (-9, "DiskFull"))
    if seen.exit_code == 0:
        assert bounded.log("h") == ["No space left on device"]
    assert isinstance(bounded.engine, LocalEngine)
    run = bounded.engine.folder("gang")
    assert 40 * MIB < taken(run / "disk-h.img") < 56 * MIB


def needs_volumes(lab: Lab) -> None:
    assert isinstance(lab.engine, LocalEngine) and lab.engine.volumes is not None
    if not lab.engine.volumes.possible:
        pytest.skip(lab.engine.volumes.lack)


@pytest.mark.control("As the machine's root the same steps open the device (in this test)")
@pytest.mark.parametrize("grouped", [WAYS[0]])
def test_the_device_below_a_volume(bounded: Lab, tmp_path: Path) -> None:
    """A job sees its file system, not the blocks that it lies on."""
    needs_volumes(bounded)
    script = """
        import os, re, stat
        got = 0
        for place in ("/tmp", "/root", "/dev", "/opt/ml/model"):
            for n in range(64):
                try:
                    path = f"{place}/loop{n}"
                    os.mknod(path, 0o666 | stat.S_IFBLK, os.makedev(7, n))
                    fd = os.open(path, os.O_RDWR)
                    os.pwrite(fd, b"stolen", 1024 + 120); got += 1
                except OSError: pass
        for line in open("/proc/self/mountinfo"):
            for path in re.findall(r"/\\S+", line):
                try:
                    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
                    got += stat.S_ISBLK(os.fstat(fd).st_mode)
                except OSError: pass
        print("end", got)
    """
    model = bounded.folder / "model"
    model.mkdir()
    mount = bounded.mount(model, "/opt/ml/model", "rw", volume=True)
    assert grabs(bounded, script, mount).exit_code == 0
    assert bounded.log("h") == ["end 0"]
    assert isinstance(bounded.engine, LocalEngine)
    images = [bounded.engine.folder("neighbour") / "disk-n.img"]
    images.append(bounded.engine.folder("gang") / "disk-h.img")
    for image in images:  # ext4 keeps a volume's name there
        with image.open("rb") as file:
            file.seek(1024 + 120)
            assert file.read(16) == bytes(16)
    device = attached(images[0])
    assert device is not None
    os.mknod(tmp_path / "device", 0o600 | stat.S_IFBLK, os.stat(device).st_rdev)
    os.close(os.open(tmp_path / "device", os.O_RDWR))


def taken(folder: Path) -> int:
    if folder.is_file():
        return folder.stat().st_blocks * 512
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


@pytest.mark.control(NO_BOUND)
@pytest.mark.parametrize("grouped", [WAYS[1]])
@pytest.mark.parametrize("nested", [False, True])
def test_inodes(bounded: Lab, nested: bool) -> None:
    script = """
        import os, time
        os.chdir("/tmp")
        for n in range(3000):
            os.mkdir(f"{n % 900}"); os.chdir(f"{n % 900}") if nested else None
            if n % 200 == 0: time.sleep(0.02)
            if not nested and n % 900 == 899: os.mkdir(f"d{n}"); os.chdir(f"d{n}")
        time.sleep(60)
    """.replace("nested", str(nested))
    seen = grabs(bounded, script, disk_mib=16)
    bounded.engine.forget("gang")  # pytest's own clearing away would recurse
    assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
    assert seen.detail.endswith(" files and folders; it may have 1024")


@pytest.mark.control("At 0e393ec the log was as large as the job made it")
@pytest.mark.parametrize("grouped", [WAYS[1]])
def test_a_flood_of_output(bounded: Lab) -> None:
    script = "import sys\nfor n in range(60): sys.stdout.write('x' * 2**20 + '\\n' * 2**16)"
    assert grabs(bounded, script, log_mib=4).exit_code == 0
    assert (bounded.folder / "h.log").stat().st_size < 9 * MIB


@pytest.mark.control("At 0e393ec a crash wrote its whole memory into the job's folder")
def test_core_dumps(lab: Lab) -> None:
    out = lab.folder / "out"
    out.mkdir()
    script = """
        import os, resource, signal
        os.chdir("/out")
        try: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
        except (OSError, ValueError): pass
        held = os.urandom(2**25); os.kill(os.getpid(), signal.SIGSEGV)
    """
    seen = lab.run(lab.python("h", script, lab.mount(out, "/out", "rw")))["h"]
    assert seen.exit_code == -11 and list(out.iterdir()) == []


@pytest.mark.control("At 0e393ec a child of a fork server was in no group of its job's")
def test_a_memory_bomb_in_a_child_of_a_fork_server(stage: Stage) -> None:
    stage.warm()
    spec = stage.spec("import heavy\n" + HOLD, "holds")
    (process,) = spec.processes
    stage.lab.place(replace(spec, processes=(replace(process, memory_mib=200),)))
    seen = stage.lab.finished("holds")["algo-1"]
    assert stage.log("holds")[0] == "hired"
    assert seen.reason == "OutOfMemory" and seen.exit_code == -9
