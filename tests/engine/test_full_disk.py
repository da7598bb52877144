"""A disk that a job fills: nothing is lost that was written, and how it ended is told later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.engine import GangSpec, InsufficientCapacity
from cloche.engine.probe import probe
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.skipif(MACHINE.isolation != "full", reason=" ".join(MACHINE.advice))
def test_a_job_fills_the_disk(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, test_full_disk as t; t.run_on_a_small_disk(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
