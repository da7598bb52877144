"""A lab of the local engine, for its contract and for tests of what runs on it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloche.engine.local.accounts import Resources
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.runs import held
from cloche.engine.local.sandbox import Machine
from cloche.engine.local.supervisor import mounts
from cloche.testing.engine_lab import Lab, kill_by_pid, wait_until

RESOURCES = Resources(cpus=2, memory_mib=8192)
# Spaces don't hurt a sandbox; without one, paths are written into the scripts themselves.
LONG = "a-long-name-for-a-földer-" * 4  # with the rest beyond what a unix socket's address holds


@contextmanager
def local_lab(
    folder: Path, machine: Machine, *, grouped: bool = True, mounted: bool = True
) -> Iterator[Lab]:
    """Give a lab whose engine has two CPUs and 8 GiB; what still runs at the end is killed."""
    root = folder / LONG / "runs"

    def make() -> LocalEngine:
        return LocalEngine(
            root, machine=machine, resources=RESOURCES, grouped=grouped, mounted=mounted
        )

    def kill_supervisor(gang: str) -> None:
        run = make().folder(gang)
        if held(run):
            kill_by_pid(json.loads((run / "state.json").read_text())["supervisor"])
            wait_until(lambda: not held(run))

    lab = Lab(folder, make, kill_supervisor)
    try:
        yield lab
    finally:
        lab.close()
        groups = make().groups
        if groups is not None:
            groups.sweep(())
        # The last engine has found the gangs once more.
        mounts.unmount(list(mounts.volumes(str(root))), discard=True)
