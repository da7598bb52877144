"""`make install`: the command `cloche` in a folder of the PATH; what it says meanwhile."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def install(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "scripts/install"],
        env={"PATH": os.environ["PATH"], "BINDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_link_is_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bin"
    done = install(folder)
    assert done.returncode == 0, done.stderr
    assert f"Linked {folder}/cloche to {ROOT}/.venv/bin/cloche" in done.stdout
    assert f'  export PATH="{folder}:$PATH"' in done.stdout
    assert (folder / "cloche").readlink() == ROOT / ".venv/bin/cloche"
    again = install(folder, PATH=f"{folder}:{os.environ['PATH']}")
    assert again.returncode == 0
    assert "export PATH" not in again.stdout


def test_it_goes_to_the_home_of_the_user(tmp_path: Path) -> None:
    assert install(Path(), BINDIR="", HOME=str(tmp_path)).returncode == 0
    assert (tmp_path / ".local/bin/cloche").is_symlink()


def test_another_program_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cloche").write_text("mine")
    done = install(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path}/cloche exists and is not a link: it is left alone. "
        "Choose another folder: make install BINDIR=DIR\n"
    )
    assert (tmp_path / "cloche").read_text() == "mine"


@pytest.fixture
def packages() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "install_packages", ROOT / "scripts/install_packages.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Collecting torch>=2.9\n", "finding torch"),
        (
            "  Downloading https://x/torch-2.14.1-cp311-manylinux.whl (906.4 MB)\n",
            "downloading torch (906.4 MB)",
        ),
        (
            "  Downloading nvidia_nvtx-13.0-py3.whl.metadata (2 kB)\n",
            "downloading nvidia_nvtx (2 kB)",
        ),
        ("  Using cached rich-14.3-py3-none-any.whl (310 kB)\n", "reading rich (310 kB)"),
        ("Installing collected packages: a, b, c\n", "installing 3 packages"),
        ("Requirement already satisfied: rich\n", "starting pip"),
        ("\n", "starting pip"),
    ],
)
def test_pips_lines_say_how_far_it_is(packages: ModuleType, line: str, step: str) -> None:
    progress = packages.Progress()
    progress.hear(line)
    assert progress.step == step


def test_what_is_missing_is_said(packages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PROOFS", {"tour": ("sys",), "dev": ("surely_not_there",)})
    assert packages.missing("tour", packages.Progress()) == ""
    assert "surely_not_there" in packages.missing("tour,dev", packages.Progress())


def test_progress_is_shown_while_it_takes_long(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "ELSEWHERE_S", 0.01)
    monkeypatch.setattr(packages, "VENV", Path(__file__).parent)
    progress = packages.Progress()
    progress.hear("Installing collected packages: a, b")
    shown: list[str] = []
    progress.thread.start()
    try:
        for _ in range(1000):
            shown += capsys.readouterr().out.splitlines()
            if shown:
                break
            progress.over.wait(0.01)
    finally:
        progress.over.set()
        progress.thread.join()
    assert shown[0] == "  0:00  installing 2 packages: 0.0 GB in .venv"


def test_sizes_are_of_the_disk(packages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(os.urandom(2_000_000))
    assert packages.folder_gb(tmp_path) == pytest.approx(0.002, rel=0.1)
    assert sys.prefix == str(packages.VENV)
