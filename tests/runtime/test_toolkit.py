"""Our runner beside AWS's training toolkit: the same files give a script the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toolkit_record import CASES, handed_over, prepare

from cloche.runtime import training

RECORD = json.loads(Path(__file__).with_name("toolkit.json").read_text())["cases"]


def without_machine(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what hangs on the machine that it ran on."""
    env = found["env"]
    env["SM_NUM_CPUS"] = env["SM_TRAINING_ENV"]["num_cpus"] = "any"
    return found


def given_by_ours(base: Path, case: dict[str, Any]) -> dict[str, Any]:
    source, environment = prepare(base, case)
    runner = [sys.executable, training.__file__, str(source)]
    ran = subprocess.run(runner, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return handed_over(base)


@pytest.mark.parametrize("name", CASES)
def test_script_gets_the_same(name: str, tmp_path: Path) -> None:
    ours = without_machine(given_by_ours(tmp_path, CASES[name]))
    theirs = without_machine(RECORD[name])
    assert ours["argv"] == theirs["argv"]
    assert ours["cwd"] == theirs["cwd"]
    assert ours["env"] == theirs["env"]
