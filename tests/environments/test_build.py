"""Building environments with real venv and pip, from a folder of wheels: no registry is needed."""

import fcntl
import json
import subprocess
import sysconfig
import threading
from pathlib import Path

import pytest

from cloche.core.config import Home
from cloche.environments import table
from cloche.environments.build import BuildError, build, compilers, outside
from cloche.environments.ready import MANIFEST, distribution, folder_of, ready
from cloche.environments.table import FRAMEWORKS, Framework
from cloche.testing.wheel import write_wheel

TINY = Framework("tiny", ("app",), ("clochetiny==1.2",), added=True)


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "clochetiny", "1.2", "ANSWER = 42\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_built_once_and_after_a_kill_anew(tmp_path: Path) -> None:
    home, said = Home(tmp_path / "home"), []
    assert ready(TINY, home) is None
    rest = folder_of(TINY, home) / "bin"  # of a build that was killed: no manifest
    rest.mkdir(parents=True)
    (rest / "python").touch()
    assert ready(TINY, home) is None
    made = build(TINY, home, said.append, outside)
    assert any("clochetiny-1.2" in line for line in said)
    assert dict(made.versions) == {"clochetiny": "1.2"} and made.built is not None
    assert made.prefixes[0] == folder_of(TINY, home)
    code = "import clochetiny, importlib.util as u; print(clochetiny.ANSWER, u.find_spec('cloche'))"
    printed = subprocess.check_output([made.python, "-I", "-c", code], text=True)
    assert printed == "42 None\n"
    assert ready(TINY, home) == made
    said.clear()
    assert build(TINY, home, said.append, outside) == made and not said
    other = Framework("tiny", ("app",), ("clochetiny==1.3",))
    assert folder_of(other, home) != folder_of(TINY, home) and ready(other, home) is None
    manifest = made.prefixes[0] / MANIFEST
    newer = json.loads(manifest.read_text()) | {"what-comes": 1}
    manifest.write_text(json.dumps(newer))
    assert ready(TINY, home) == made
    for damaged in ("", "[]", json.dumps(newer | {"versions": [1]})):  # as by a crash of the disk
        manifest.write_text(damaged)
        assert ready(TINY, home) is None


def test_over_another(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packages go before those beneath, which stay as they are; commands beneath run in it."""
    write_wheel(wheels, "clochetiny", "1.1", "ANSWER = 41\n")
    write_wheel(wheels, "clocheother", "1.0", "import clochetiny\nSEES = clochetiny.ANSWER\n")
    home = Home(tmp_path / "home")
    base = Framework("base", ("app",), ("clochetiny==1.2", "clocheother"))
    upper = Framework("upper", (), ("clochetiny==1.1",), over="base", imported=("clochetiny",))
    monkeypatch.setattr(table, "FRAMEWORKS", (base, upper))
    beneath = build(base, home, lambda _line: None, outside)
    command = beneath.prefixes[0] / "bin/answer"
    command.write_text(f"#!{beneath.python}\nimport clocheother\nprint(clocheother.SEES)\n")
    command.chmod(0o755)
    made = build(upper, home, lambda _line: None, outside)
    assert ready(upper, home) == made
    assert made.prefixes == (folder_of(upper, home), *beneath.prefixes)
    assert dict(made.versions) == {"clochetiny": "1.1", "clocheother": "1.0"}
    for prefix, answer in ((made.prefixes[0], "41\n"), (beneath.prefixes[0], "42\n")):
        assert subprocess.check_output([prefix / "bin/answer"], text=True) == answer
    (beneath.prefixes[0] / MANIFEST).unlink()
    assert ready(upper, home) is None, "what it stands on is gone"


def test_what_it_stands_on_is_built_first(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, "clochetiny", "1.1", "ANSWER = 41\n")
    base = Framework("base", ("app",), ("clochetiny==1.2",))
    upper = Framework("upper", (), ("clochetiny==1.1",), over="base", imported=("clochetiny",))
    monkeypatch.setattr(table, "FRAMEWORKS", (base, upper))
    home = Home(tmp_path / "home")
    build(upper, home, lambda _line: None, outside)
    assert ready(base, home) is not None and ready(upper, home) is not None


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    missing = Framework("missing", ("app",), ("clochetiny==9",))
    with pytest.raises(BuildError, match="pip ended with exit code 1") as error:
        build(missing, home, lambda _line: None, outside)
    assert error.value.lines[-1] == "ERROR: No matching distribution found for clochetiny==9"
    assert [path.name for path in home.environments.iterdir()] == [".lock"]


def test_two_builds_wait_for_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, waiting = Home(tmp_path / "home"), threading.Event()
    home.environments.mkdir(parents=True)
    monkeypatch.setattr("cloche.environments.build.fill", fill)
    with (home.environments / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def say(line: str) -> None:
            assert line == "Waiting for another build to end"
            waiting.set()

        second = threading.Thread(target=build, args=(TINY, home, say, outside))
        second.start()
        assert waiting.wait(10) and ready(TINY, home) is None
    second.join(10)
    assert ready(TINY, home) is not None


def fill(_framework: Framework, folder: Path, _under: None, _say: object, _pip: object) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    (folder / MANIFEST).write_text('{"versions": {}, "built": "2026-01-01"}')


def test_own_python_stands_in_where_it_has_enough(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    by_name = {framework.name: framework for framework in FRAMEWORKS}
    found = ready(by_name["scikit-learn"], Home(tmp_path))
    assert found is not None and found.built is None
    assert {"scikit-learn", "joblib", "numpy"} <= set(found.versions)
    assert ready(Framework("x", ("x",), ("numpy",)), Home(tmp_path)) is None
    assert ready(Framework("x", ("x",), ("numpy",), ("nothing-such",)), Home(tmp_path)) is None
    assert ready(Framework("x", ("x",), ("numpy>=1.23",), ("numpy",)), Home(tmp_path)) is not None
    assert ready(Framework("x", ("x",), ("numpy>=99",), ("numpy",)), Home(tmp_path)) is None


@pytest.mark.parametrize(
    ("package", "name"), [("torch", "torch"), ("a[b]>=1", "a"), ("a.b-c @ x", "a.b-c")]
)
def test_name_of_a_requirement(package: str, name: str) -> None:
    assert distribution(package) == name


@pytest.mark.parametrize("lacking", ["nothing", "compiler", "headers"])
def test_c_is_compiled_where_that_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """A build of the toolkits needs no compiler: their library of C is then left out."""
    include, compiler = tmp_path / "include", tmp_path / "bin/mycc"
    for path in (include / "Python.h", compiler):
        path.parent.mkdir()
        path.touch(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: "mycc -pthread")
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(include))
    if lacking != "nothing":
        (compiler if lacking == "compiler" else include / "Python.h").unlink()
    expected = {} if lacking == "nothing" else {"CC": "true", "LDSHARED": "true"}
    assert compilers() == expected
