"""A disk that a job fills: nothing is lost that was written, and how it ended is told later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.engine import GangSpec
from cloche.engine.probe import probe
from cloche.testing.engine_lab import outcomes, wait_until
from cloche.testing.local_engine import local_lab

MACHINE = probe()
LINES = 5000


def run_on_a_small_disk(folder: Path) -> None:
    """Run in a mount namespace of its own: `folder` gets a file system of 8 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    script = f"echo before; head -c 16m /dev/zero > /tmp/fill; seq {LINES}; exit 3"
    with local_lab(folder, MACHINE) as lab:
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script),)))
        fill = next(folder.rglob("host-h")) / "tmp" / "fill"

        wait_until(lambda: lab.engine.usage("gang") == {})  # it ended, unrecorded
        seen = lab.engine.see("gang")
        assert seen is not None and seen["h"].state == "running"
        fill.unlink()
        assert outcomes(lab.finished()) == {"h": (3, None)}
        lines = lab.log("h")
        assert lines[0] == "before" and len(lines) < LINES
        numbers = [int(line) for line in lines if line.isdigit()]
        assert numbers == list(range(1, len(numbers) + 1)), "what fitted is there, in order"
        lost = LINES - len(numbers)
        assert lines[-1] == f"[cloche] {lost} log lines were lost here: No space left on device"


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
