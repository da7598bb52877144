"""A writer that is killed at any moment has every write that it acknowledged."""

from __future__ import annotations

import random
import select
import subprocess
import sys
import time
from pathlib import Path

from cloche.records.store import Store

WRITE = Path(__file__).parent / "write.py"
ROUNDS = 4


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    moments = random.Random(1)
    acknowledged: set[str] = set()
    for _ in range(ROUNDS):
        command = [sys.executable, str(WRITE), "forever", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 30)[0], "nothing was written"
            # Killed while it writes, at a moment that nothing is in step with.
            until = time.monotonic() + moments.uniform(0.0, 0.25)
            output = b""
            while time.monotonic() < until:
                output += process.stdout.read1(65536)  # type: ignore[attr-defined]
            process.kill()
            output += process.stdout.read()
        acknowledged |= {line.decode() for line in output.split(b"\n")[:-1]}
        store = Store.open(tmp_path / "cloche.db")
        there = {one.name: one for one in store.each("k")}
        assert acknowledged <= there.keys()
        assert all(there[name].status == "Second" for name in acknowledged)
        store.close()
    assert len(acknowledged) > 50
