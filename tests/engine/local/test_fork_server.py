"""Fork servers: a script starts in an interpreter that has imported its packages before.

The stand-in for torch is a module that leaves word each time it is imported for real.
"""

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cloche.engine import GangSpec, Preload
from cloche.engine.local import forking
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.probe import probe
from cloche.engine.local.sandbox import UPPER
from cloche.engine.local.supervisor import mounts
from cloche.engine.local.supervisor.filter import program
from cloche.testing.engine_lab import outcomes, wait_until
from cloche.testing.fork_lab import LOADED, Stage
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
pytestmark = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
LOOK = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
names = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
         "Seccomp", "Umask", "SigBlk", "SigIgn", "SigCgt", "Threads")
seen = {name: status[name].strip() for name in names}
seen["mounts"] = [line.split()[3:6] for line in open("/proc/self/mountinfo")]
seen["fds"] = {fd: os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
               for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}
for name in ("cwd", "root", "exe"):
    seen[name] = os.readlink(f"/proc/self/{name}")
for name in ("limits", "uid_map", "gid_map", "oom_score_adj", "cgroup"):
    seen[name] = open(f"/proc/self/{name}").read()
sandbox = {name: os.readlink(f"/proc/1/ns/{name}") for name in os.listdir("/proc/1/ns")}
seen["same namespaces as 1"] = all(
    os.readlink(f"/proc/self/ns/{name}") == link for name, link in sandbox.items())
seen["nice"], seen["host"] = os.nice(0), os.uname().nodename
seen["ids"] = (os.getresuid(), os.getresgid())
seen["env"], seen["argv"], seen["path"] = dict(os.environ), sys.argv, sys.path
seen["main"] = sorted(vars(sys.modules["__main__"]).keys() - {"status", "names", "seen", "sandbox"})
seen["file"], seen["flags"] = __file__, str(sys.flags)
seen["executable"], seen["hash"] = sys.executable, sys.flags.hash_randomization
print(json.dumps(seen), flush=True)
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with local_lab(tmp_path, SANDBOXED) as lab:
        stage = Stage(lab)
        yield stage
        assert isinstance(lab.engine, LocalEngine)
        for server in lab.engine.fork_servers.servers.values():
            server.end()
            server.process.wait(20)
        Path(f"/tmp/heavy-{stage.name}").unlink(missing_ok=True)


def test_imported_before_the_job(stage: Stage) -> None:
    """The second job's script finds the module imported, by another process."""
    stage.warm()
    script = "import heavy, os; print(heavy.PID_OF_IMPORT != os.getpid(), os.path.exists(%r))"
    lines = stage.run(script % f"/tmp/heavy-{stage.name}", "second")
    assert lines == ["hired", "True False", "status 0"]
    assert Path(f"/tmp/heavy-{stage.name}").read_text() == "imported\n"


def test_it_holds_no_volumes(stage: Stage) -> None:
    """It begins with the mounts that there are then; a job's volume would stay as long as it."""
    engine = stage.lab.engine
    assert isinstance(engine, LocalEngine) and engine.volumes is not None
    if not engine.volumes.possible:
        pytest.skip(engine.volumes.lack)
    beside = stage.lab.process("h", "sleep 99")
    stage.lab.place(GangSpec(name="beside", processes=(beside,), background=True))
    ours, pid = mounts.volumes(str(engine.folder("beside"))), stage.warm()
    assert ours and Path(f"/proc/{pid}/mountinfo").read_text()
    assert str(engine.folder("beside")) not in Path(f"/proc/{pid}/mountinfo").read_text()


@pytest.fixture(params=["as usual", "nohup"])
def signals(request: pytest.FixtureRequest) -> Iterator[None]:
    """How the server was started: `nohup … &` ignores these two, and passes that on."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    for number, usual in zip(numbers, (signal.default_int_handler, signal.SIG_DFL), strict=True):
        signal.signal(number, usual if request.param == "as usual" else signal.SIG_IGN)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_same_as_an_ordinary_start(stage: Stage) -> None:
    """Credentials, mounts, descriptors, namespaces, limits, environment: all are the same."""
    stage.warm()
    understudy = stage.run(LOOK, "look")
    assert understudy[0] == "hired"
    (stage.folder / "code/uses.py").write_text("# import heavy\n")
    os.rename(stage.folder / "look.log", stage.folder / "hired.log")
    stage.lab.engine.forget("look")
    ordinary = stage.run(LOOK, "look")
    assert ordinary[0] == "ordinary"
    one, other = json.loads(understudy[1]), json.loads(ordinary[1])
    assert one["CapEff"] != "0000000000000000"
    assert one["same namespaces as 1"] is True
    for seen in (one, other):
        seen["mounts"] = [[m[1], m[2]] for m in seen["mounts"]]
    assert one == other
    assert one["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("script", "status", "outcome"),
    [
        ("raise SystemExit(7)", "status 7", (7, None)),
        ("1 / 0", "status 1", (1, None)),
        ("import os; os.kill(os.getpid(), 9)", "status -9", (-9, None)),
        ("import os; os._exit(200)", "status 200", (200, None)),
    ],
)
def test_exact_status(stage: Stage, script: str, status: str, outcome: tuple[int, None]) -> None:
    stage.warm()
    lines = stage.run(script, "ends")
    assert (lines[0], lines[-1], stage.ended) == ("hired", status, outcome)
    if script == "1 / 0":
        assert [line for line in lines if "File" in line] == [
            '  File "/code/ends.py", line 1, in <module>'
        ]


def test_ends_as_an_interpreter_does(stage: Stage) -> None:
    """Threads are awaited, exit functions run, files that were left open are written."""
    stage.warm()
    script = """
        import atexit, threading, time
        left_open = open("/out/left", "w")
        left_open.write("all of it")
        atexit.register(lambda: print("at exit"))
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        print("main")
    """
    gang = stage.spec(script, "ends")
    (stage.folder / "out").mkdir()
    out = stage.lab.mount(stage.folder / "out", "/out", "rw")
    process = replace(gang.processes[0], mounts=(*gang.processes[0].mounts, out))
    stage.lab.place(replace(gang, processes=(process,)))
    stage.lab.finished("ends")
    assert stage.log("ends") == ["hired", "main", "thread", "at exit", "status 0"]
    assert (stage.folder / "out/left").read_text() == "all of it"


def test_stop_reaches_it(stage: Stage) -> None:
    """SIGTERM comes through the runner; what the script does about it is its own affair."""
    stage.warm()
    script = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
    """
    stage.lab.place(stage.spec(script, "stops"))
    wait_until(lambda: stage.lab.said("stops", "ready"))
    stage.engine.stop("stops")
    assert outcomes(stage.lab.finished("stops"))["algo-1"] == (3, "Stopped")
    assert stage.log("stops")[-1] == "status 3"


def test_counted_and_killed_with_its_gang(stage: Stage) -> None:
    """`usage` counts the script; kill -9 of the supervisor ends it."""
    stage.warm()
    script = """
        held = bytearray(300 * 2**20)
        print("ready", flush=True)
        while True:
            pass
    """
    stage.lab.place(stage.spec(script, "spins"))
    wait_until(lambda: stage.lab.said("spins", "ready"))
    assert stage.engine.usage("spins")["algo-1"].memory_mib > 300
    spinning = [p for p in psutil.process_iter(["cmdline"]) if is_understudy(p, stage.python)]
    stage.lab.kill_supervisor("spins")
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in spinning[1:]))


def is_understudy(process: psutil.Process, python: str) -> bool:
    words = process.info["cmdline"] or []
    return words[:1] == [python] and "fork_server.py" in words[1]


def test_death_of_the_fork_server(stage: Stage) -> None:
    """A job that runs goes on; the next one starts as ever, the one after that is warm again."""
    pid = stage.warm()
    script = """
        import pathlib, time
        print("ready", flush=True)
        while not pathlib.Path("/code/enough").exists():
            time.sleep(0.02)
        print("done")
    """
    stage.lab.place(stage.spec(script, "runs"))
    wait_until(lambda: stage.lab.said("runs", "ready"))
    os.kill(pid, signal.SIGKILL)
    assert stage.run("print('next')", "next") == ["ordinary", "next", "status 0"]
    (stage.folder / "code/enough").touch()
    assert outcomes(stage.lab.finished("runs"))["algo-1"] == (0, None)
    assert stage.log("runs") == ["hired", "ready", "done", "status 0"]


def test_a_fork_server_that_hangs(stage: Stage) -> None:
    """A script is not kept waiting, and runs once."""
    pid = stage.warm()
    os.kill(pid, signal.SIGSTOP)
    try:
        lines = stage.run("print('ran')", "waits")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert lines == ["ordinary", "ran", "status 0"]


def test_an_environment_that_changed(stage: Stage) -> None:
    """A package that was installed since ends the fork server."""
    pid = stage.warm()
    (stage.packages / "new.py").write_text("")
    assert stage.run("import new; print('new')", "after") == ["ordinary", "new", "status 0"]
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_only_so_many_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the most ends the one that was not used for longest."""
    monkeypatch.setattr(forking, "MOST", 2)
    assert isinstance(stage.engine, LocalEngine)
    servers = stage.engine.fork_servers.servers
    gangs = {name: stage.spec("pass", name) for name in ("a", "b", "c")}
    for name in ("a", "b", "a", "c"):
        (process,) = gangs[name].processes
        other = replace(process, preload=Preload((name,), LOADED))
        (conversation,) = stage.engine.fork_servers.conversations(
            replace(gangs[name], processes=(other,))
        ).values()
        conversation.close()
    assert [key.modules for key in servers] == [("a",), ("c",)]


def test_ends_with_the_server(stage: Stage) -> None:
    """When the engine's process is gone, whatever way, its socket closes."""
    pid = stage.warm()
    assert isinstance(stage.engine, LocalEngine)
    (server,) = stage.engine.fork_servers.servers.values()
    (held,) = stage.engine.fork_servers.memory_mib()
    assert held > 1
    server.control.close()
    wait_until(lambda: psutil.Process(pid).status() == "zombie")


@pytest.mark.parametrize(
    ("script", "env", "start"),
    [
        ("pass", {"PYTHONUNBUFFERED": "1"}, "ordinary"),
        ("pass", {"OMP_PROC_BIND": "true"}, "ordinary"),
        ("pass", {"OMP_NUM_THREADS": "2", "SM_HP_LR": "1"}, "hired"),
        ("import os; os.environ['OMP_NUM_THREADS'] = '1'", {}, "ordinary"),
        ("import os; os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'", {}, "hired"),
    ],
)
def test_what_is_read_at_load(stage: Stage, script: str, env: dict[str, str], start: str) -> None:
    """A variable that an interpreter or a library reads when loaded gets them loaded anew."""
    stage.warm()
    assert stage.run(script, "asks", env) == [start, "status 0"]


# What is in the site-packages of a layer, and how a script that imports `heavy` starts then: each
# but the first two would change what an import of `heavy`, or an interpreter's start, does.
HEAVY_LOOKS = """
import importlib.metadata
try:
    import heavy_extra as EXTRA
except ImportError:
    EXTRA = None
try:
    VERSION = importlib.metadata.version("heavy_plugin")
except importlib.metadata.PackageNotFoundError:
    VERSION = None
WHOSE = "environment"
"""
LAYERS: dict[str, tuple[dict[str, str], str]] = {
    "adds": ({"more.py": "WHAT = 1", "more-1.dist-info/METADATA": ""}, "hired"),
    "command": ({"c.dist-info/entry_points.txt": "[console_scripts]\nc = c:main\n"}, "hired"),
    "replaces": ({"heavy.py": "from os import getpid as PID_OF_IMPORT\n"}, "ordinary"),
    "extra": ({"heavy_extra.py": ""}, "ordinary"),
    "asked": ({"Heavy.Plugin-2.dist-info/METADATA": "Version: 2\n"}, "ordinary"),
    "plugin": ({"p.dist-info/entry_points.txt": "[heavy.plugins]\np = p\n"}, "ordinary"),
    "startup": ({"start.pth": "import os\n"}, "ordinary"),
    "customized": ({"sitecustomize.py": ""}, "ordinary"),
    "user": ({"usercustomize/__init__.py": ""}, "ordinary"),
    "shadows": ({"heavy/__init__.py": ""}, "ordinary"),
    "removes": ({"uses_none.py": "WHITEOUT"}, "ordinary"),
}


def over(stage: Stage, script: str, name: str, packages: dict[str, str]) -> GangSpec:
    """Return a job that sees files in its site-packages, as a layer over the environment."""
    layer = stage.folder / f"layer-{name}"
    folder = layer / UPPER / stage.packages.relative_to(stage.venv)
    for path, text in packages.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if text == "WHITEOUT":
            os.mknod(folder / path, stat.S_IFCHR)
        else:
            (folder / path).write_text(text)
    gang = stage.spec(script, name)
    mounts = tuple(
        replace(mount, layers=(stage.engine.stage(layer),))
        if mount.source.place == str(stage.venv)
        else mount
        for mount in gang.processes[0].mounts
    )
    return replace(gang, processes=(replace(gang.processes[0], mounts=mounts),))


def test_a_layer_over_the_environment(stage: Stage) -> None:
    """The fork server has the environment alone; a script starts in it where its layer would have
    changed nothing of what was imported, and else as an ordinary process.
    """
    with (stage.packages / "heavy.py").open("a") as file:
        file.write(HEAVY_LOOKS)
    (stage.packages / "uses_none.py").write_text("")
    stage.warm()
    started: dict[str, str] = {}
    for name, (packages, _start) in LAYERS.items():
        if "WHITEOUT" in packages.values() and os.geteuid() != 0:
            started[name] = "ordinary"
            continue
        script = "import heavy, os; print(os.path.exists('/code'))"
        stage.lab.place(over(stage, script, name, packages))
        stage.lab.finished(name)
        started[name] = stage.log(name)[0]
    assert started == {name: start for name, (_packages, start) in LAYERS.items()}
    assert Path(f"/tmp/heavy-{stage.name}").read_text() == "imported\n"


def test_what_a_layer_adds_and_replaces(stage: Stage) -> None:
    """A script finds what its layer has, whichever way it started; no other script does."""
    stage.warm()
    script = "import heavy, more, os; print(more.WHAT, heavy.PID_OF_IMPORT != os.getpid())"
    found = []
    for name, packages in (
        ("adds", {"more.py": "WHAT = 'added'"}),
        ("replaces", {"more.py": "WHAT = 'too'", "heavy.py": "import os\nPID_OF_IMPORT = 0\n"}),
    ):
        stage.lab.place(over(stage, script, name, packages))
        stage.lab.finished(name)
        found.append(stage.log(name))
    assert found == [
        ["hired", "added True", "status 0"],
        ["ordinary", "too True", "status 0"],
    ]
    assert stage.run(script, "bare")[-1] == "status 1"


def test_an_understudy_is_heard_once(stage: Stage) -> None:
    """What holds the pipe to the fork server, in a sandbox, can't say more than once what to
    import, nor keep the fork server busy.
    """
    stage.warm()
    assert isinstance(stage.engine, LocalEngine)
    (server,) = stage.engine.fork_servers.servers.values()
    (stage.folder / "code/other.py").write_text("import light\n")
    assert stage.run("print('asks for one that is not there')", "asks")[0] == "ordinary"
    wait_until(lambda: pipes_of(server.process.pid) == 0)
    (stage.folder / "code/other.py").unlink()
    assert stage.run("print('next')", "next") == ["hired", "next", "status 0"]
    wait_until(lambda: pipes_of(server.process.pid) == 0)


def pipes_of(pid: int) -> int:
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.startswith("pipe:") for link in links)


def test_introduced_by_its_pidfd_alone(stage: Stage) -> None:
    """A process ID that somebody says is not believed: credentials are those of the pidfd's."""
    stage.warm()
    assert isinstance(stage.engine, LocalEngine)
    stage.lab.place(stage.spec("import time; print('up', flush=True); time.sleep(90)", "stays"))
    wait_until(lambda: stage.lab.said("stays", "up"))
    state = json.loads((stage.engine.folder("stays") / "state.json").read_text())
    (first, *_others) = psutil.Process(state["processes"]["algo-1"]["group"]).children()
    reads, writes = os.pipe()
    script = "print(next(line for line in open('/proc/self/status') if 'CapEff' in line), end='')"
    gang = stage.spec(script, "looks")
    (conversation,) = stage.engine.fork_servers.conversations(gang).values()
    pidfd = os.pidfd_open(first.pid)
    with conversation:
        conversation.settimeout(20)
        socket.send_fds(
            conversation, [b"1 " + (program() or b"")], [pidfd]
        )  # the machine's init, all of whose rights …
        request = {"argv": [stage.python, "looks.py"], "env": LOADED, "cwd": "/code"}
        socket.send_fds(conversation, [json.dumps(request).encode()], [writes, writes])
        assert conversation.recv(64).startswith(b"standing ")
        conversation.send(b"go")
        assert conversation.recv(64) == b"exit 0"
    lines = Path(f"/proc/{first.pid}/status").read_text().splitlines(keepends=True)
    assert [os.read(reads, 100).decode()] == [line for line in lines if "CapEff" in line]
    for descriptor in (reads, writes, pidfd):
        os.close(descriptor)
