"""LocalEngine keeps the contract: with sandboxes, and (what remains of it) without."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cloche.engine import EngineError, GangSpec, Placed, ProcessSpec
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.runs import held
from cloche.engine.local.sandbox import Machine
from cloche.engine.local.supervisor import mounts
from cloche.testing.engine_contract import EngineContract
from cloche.testing.engine_isolation import IsolationContract
from cloche.testing.engine_lab import Lab, outcomes, wait_until
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
ROOT = Path(__file__).resolve().parents[3]
OTHER_USER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class TestLocalEngine(IsolationContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        if SANDBOXED.isolation != "full":
            pytest.skip(" ".join(SANDBOXED.advice))
        with local_lab(tmp_path, SANDBOXED) as lab:
            yield lab

    def remove(self, folder: Path) -> None:
        """Volumes are mounted for the server alone: nobody else finds the folder busy."""
        there = mounts.here.machine
        machine = [] if there is None else ["nsenter", f"--mount=/proc/self/fd/{there}"]
        given = () if there is None else (there,)
        subprocess.run([*machine, "rm", "-r", folder], check=True, pass_fds=given)

    @as_root
    def test_users_inside(self, lab: Lab) -> None:
        """A server that runs as root gives sandboxes all users, none of them one of outside."""
        (lab.folder / "out").mkdir()
        script = """
            touch /out/a && chown 33:100 /out/a && ls -n /out/a
            setpriv --reuid nobody --clear-groups id
        """
        mount = lab.mount(lab.folder / "out", "/out", "rw")
        lab.run(lab.process("h", script, mount))
        words = lab.log("h")[0].split()
        assert (words[2], words[3]) == ("33", "100")
        assert lab.log("h")[1].startswith("uid=65534(nobody)")
        made = (lab.folder / "out" / "a").stat()
        assert (made.st_uid, made.st_gid) == (64033, 64100)

    @as_root
    def test_linked_objects_keep_their_owner(self, lab: Lab) -> None:
        """Handing a rw folder over does not touch files that have another name elsewhere."""
        blob = lab.folder / "blob"
        blob.write_text("x")
        (lab.folder / "ml").mkdir()
        os.link(blob, lab.folder / "ml" / "linked")
        (lab.folder / "ml" / "own").write_text("y")
        lab.run(lab.process("h", "true", lab.mount(lab.folder / "ml", "/opt/ml", "rw")))
        assert blob.stat().st_uid == 0
        assert (lab.folder / "ml" / "own").stat().st_uid == 64000

    def test_see_is_cheap(self, lab: Lab) -> None:
        """Under 0.1 ms a process on a quiet machine; tests allow for a busy one."""
        lab.run(*(lab.process(f"algo-{i}", "true") for i in range(10)))
        times = []
        for _ in range(50):
            begun = time.perf_counter()
            lab.engine.see("gang")
            times.append(time.perf_counter() - begun)
        assert min(times) / 10 < 0.0005

    def test_no_trace_in_the_starting_process(self, lab: Lab) -> None:
        """Launching leaves neither descriptors nor zombies behind."""
        me = psutil.Process()
        lab.run(lab.process("h", "true"), name="first")
        before = (me.num_fds(), me.children())
        lab.run(lab.process("h", "true"), name="second")
        with pytest.raises(EngineError):
            lab.engine.launch(GangSpec(name="third", processes=()))
        assert (me.num_fds(), me.children()) == before

    def test_run_directories_are_private(self, lab: Lab) -> None:
        lab.run(lab.process("h", "true"))
        assert isinstance(lab.engine, LocalEngine)
        assert stat.S_IMODE(lab.engine.folder("gang").stat().st_mode) == 0o700


class TestWithoutSandbox(EngineContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        with local_lab(tmp_path, reduced("for this test")) as lab:
            yield lab

    def test_paths_are_made_real(self, lab: Lab) -> None:
        """Where there is no /opt/ml the environment names the folders that stand behind it."""
        ml = lab.folder / "ml"
        (ml / "model").mkdir(parents=True)
        env = {"SM_MODEL_DIR": "/opt/ml/model", "X": '{"a":"/opt/ml"}', "SM_OTHER": "/opt/mlx"}
        script = "echo $SM_MODEL_DIR; echo $X; echo $SM_OTHER; echo z > $SM_MODEL_DIR/m"
        host = lab.process("h", script, lab.mount(ml, "/opt/ml", "rw"), env=env)
        assert outcomes(lab.run(host)) == {"h": (0, None)}
        assert lab.log("h") == [f"{ml}/model", f'{{"a":"{ml}"}}', "/opt/mlx"]
        assert (ml / "model" / "m").read_text() == "z\n"


def test_a_machine_that_refuses_namespaces(tmp_path: Path) -> None:
    """A failing trial run leads to reduced isolation, which says why."""
    broken = Machine("full", program="/bin/false", system=SANDBOXED.system)
    found = LocalEngine(tmp_path / "runs", machine=broken).tried(broken)
    engine = LocalEngine(tmp_path / "runs", machine=found)
    assert engine.machine.isolation == "paths"
    assert engine.isolation.startswith("Reduced isolation: jobs see this machine.")
    assert "The trial run said: " in engine.isolation
    assert engine.adopt() == () and list((tmp_path / "runs").iterdir()) == []


def test_a_trial_of_a_killed_server_is_cleared_away(tmp_path: Path) -> None:
    """What it left is no gang, and goes; another gang that ended stays."""
    root = tmp_path / "runs"
    engine = LocalEngine(root, machine=SANDBOXED)
    for name in (".trial-x1", "other"):
        process = ProcessSpec(name="h", argv=("/bin/true",), memory_mib=0)
        assert engine.launch(GangSpec(name=name, processes=(process,))) == Placed()
        wait_until(lambda name=name: not held(engine.folder(name)))  # type: ignore[misc]
    assert set(engine.adopt()) == {".trial-x1", "other"}
    again = LocalEngine(root, machine=SANDBOXED)
    assert again.adopt() == ("other",)
    again.forget("other")
    wait_until(lambda: list(root.iterdir()) == [])


def test_this_machine(tmp_path: Path) -> None:
    """The probe's answer stands up to a trial run."""
    engine = LocalEngine(tmp_path / "runs")
    assert engine.machine.isolation == SANDBOXED.isolation
    assert engine.adopt() == () and list((tmp_path / "runs").iterdir()) == []


@as_root
@pytest.mark.skipif(SANDBOXED.isolation != "full", reason=" ".join(SANDBOXED.advice))
def test_as_an_unprivileged_user() -> None:
    """What depends on who the server is holds without root, too."""
    python = next(
        (p for p in (sys.executable, "/usr/bin/python3") if usable(p)),
        None,
    )
    if python is None:
        pytest.skip("no Python 3.11 that another user may run")
    with tempfile.TemporaryDirectory(prefix="cloche-user-") as folder:
        os.chown(folder, OTHER_USER, OTHER_USER)
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts="]
        options += [
            "-k",
            "input or reach or forget or stop or privileges or restart or only or lost "
            "or imported or ordinary or layer",
        ]
        more = (
            Path(__file__).with_name(name) for name in ("test_fork_server.py", "test_layers.py")
        )
        tests = [f"{__file__}::TestLocalEngine", *map(str, more)]
        command = [python, "-m", "pytest", *options, "--basetemp", f"{folder}/tests", *tests]
        done = subprocess.run(command, cwd=ROOT, **another_user(folder))  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout[-5000:]
        assert " passed" in done.stdout


def usable(python: str) -> bool:
    """Tell whether another user can run this project's code with that interpreter."""
    code = "import sys, cloche, psutil, pytest; sys.exit(sys.version_info < (3, 11))"
    try:
        command = [python, "-c", code]
        done = subprocess.run(command, cwd=ROOT, **another_user("/tmp"))  # type: ignore[call-overload]
    except OSError:
        return False
    return bool(done.returncode == 0)


def another_user(home: str) -> dict[str, object]:
    """Return subprocess settings: another user, nothing inherited, output kept."""
    packages = Path(psutil.__file__).parents[1]
    env = {"HOME": home, "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return {
        "user": OTHER_USER,
        "group": OTHER_USER,
        "extra_groups": [],
        "env": env | {"PYTHONPATH": f"{ROOT}:{packages}"},
        "capture_output": True,
        "text": True,
    }
