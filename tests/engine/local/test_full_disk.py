"""A disk that a job fills: nothing is lost that was written, and how it ended is told later."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.engine import GangSpec, InsufficientCapacity
from cloche.engine.local.probe import probe
from cloche.engine.local.supervisor import mounts
from cloche.testing.engine_lab import outcomes
from cloche.testing.local_engine import local_lab

MACHINE = probe()
LINES = 5000


def run_on_a_small_disk(folder: Path) -> None:
    """Run in a mount namespace of its own: `folder` gets a file system of 8 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    script = f"echo before; head -c 16m /dev/zero 2>/dev/null > /tmp/fill; seq {LINES}; exit 3"
    with local_lab(folder, MACHINE) as lab:
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script),)))
        assert outcomes(lab.finished()) == {"h": (3, None)}
        fill = next(folder.rglob("host-h")) / "tmp" / "fill"
        assert fill.stat().st_size > 0 and os.statvfs(folder).f_bavail == 0
        *lines, note = lab.log("h")
        assert len(lines) < LINES
        assert lines[:1] in ([], ["before"])
        numbers = [int(line) for line in lines[1:]]
        assert numbers == list(range(1, len(numbers) + 1)), "what fitted is there, in order"
        lost = LINES + 1 - len(lines)
        assert note == f"[cloche] {lost} log lines were lost here: No space left on device"
        refused = lab.engine.launch(GangSpec(name="next", processes=(lab.process("n", "true"),)))
        assert isinstance(refused, InsufficientCapacity)
        assert refused.message.startswith("next waits for space on the disk: 0 MiB and ")
        lab.engine.forget("gang")
        assert lab.run(lab.process("n", "true"), name="next")["n"].exit_code == 0


def take_it_at_once(folder: Path) -> None:
    """Run on a file system of 400 MiB, of which a job takes all between two looks."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=True)
    script = """
        import os, time
        with open("/tmp/all", "wb") as file:
            while True:
                try: os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + 2**20)
                except OSError: break
        time.sleep(60)
    """
    with local_lab(folder, MACHINE) as lab:
        small = lab.process("small", "head -c 8m /dev/zero > /tmp/x; sleep 99")
        lab.place(GangSpec(name="small", processes=(small,), background=True))
        lab.place(GangSpec(name="gang", processes=(lab.python("h", script),), background=True))
        seen = lab.finished()["h"]
        assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
        assert " files, and the disk is full" in seen.detail
        (folder / "record").write_bytes(b"x" * (4 << 20))  # of the server, out of the reserve
        beside = lab.engine.see("small")
        assert beside is not None and beside["small"].state == "running"
        lab.engine.forget("gang")
        (reserve,) = folder.rglob(".runs-reserve")
        assert len(list(reserve.iterdir())) == 64, "it is made anew"


def promise_too_much(folder: Path) -> None:
    """Two volumes on a file system of 400 MiB: what the second one has written is lost.

    The kernel took it, and the job ended well before it was to be written to the disk.
    """
    mounts.own()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=True)
    with local_lab(folder, MACHINE) as lab:
        seen = {}
        for name in ("one", "two"):
            process = lab.process(name, "head -c 240m /dev/zero > /tmp/x")
            lab.place(GangSpec(name=name, processes=(process,), background=True))
        for name in ("one", "two"):
            seen[name] = lab.finished(name)[name]
        whole = [one for one in seen.values() if (one.exit_code, one.reason) == (0, None)]
        full = [one for one in seen.values() if one.reason == "DiskFull"]
        assert len(whole) <= 1 and len(whole) + len(full) == 2, seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.skipif(MACHINE.isolation != "full", reason=" ".join(MACHINE.advice))
@pytest.mark.parametrize("case", [run_on_a_small_disk, take_it_at_once, promise_too_much])
def test_a_job_fills_the_disk(tmp_path: Path, case: Callable[[Path], None]) -> None:
    code = f"import sys, pathlib, test_full_disk as t; t.{case.__name__}(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
