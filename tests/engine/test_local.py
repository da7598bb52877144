"""LocalEngine keeps the contract: with sandboxes, and (what remains of it) without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine.accounts import Resources
from cloche.engine.local import LocalEngine, held
from cloche.engine.probe import probe, reduced
from cloche.engine.sandbox import Machine
from cloche.testing.engine_contract import (
    EngineContract,
    IsolationContract,
    Lab,
    kill_by_pid,
    wait_until,
)

RESOURCES = Resources(cpus=2, memory_mib=8192)


def lab_of(folder: Path, machine: Machine) -> Iterator[Lab]:
    root = folder / ("a-long-name-for-a-földer-" * 4) / "runs"  # beyond a unix socket's address

    def make() -> LocalEngine:
        return LocalEngine(root, machine=machine, resources=RESOURCES)

    def kill_supervisor(gang: str) -> None:
        run = LocalEngine(root, machine=machine)._folder(gang)
        state = json.loads((run / "state.json").read_text())
        if held(run):
            kill_by_pid(state["supervisor"])
            wait_until(lambda: not held(run))

    lab = Lab(folder, make, kill_supervisor)
    yield lab
    lab.close()


class TestLocalEngine(IsolationContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        machine = probe()
        if machine.isolation != "full":
            pytest.skip(" ".join(machine.advice))
        yield from lab_of(tmp_path, machine)


class TestWithoutSandbox(EngineContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        yield from lab_of(tmp_path, reduced("for this test"))
