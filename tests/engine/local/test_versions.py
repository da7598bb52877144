"""What outlives an upgrade: records of older releases are read, those of newer ones refused."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.engine import EngineError, GangSpec
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.probe import probe
from cloche.engine.local.supervisor.version import VERSION
from cloche.testing.engine_lab import Lab, outcomes, wait_until
from cloche.testing.local_engine import local_lab

RECORDS = ("plan.json", "state.json", "exit-h.json")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with local_lab(tmp_path, probe()) as lab:
        yield lab


def run_of(lab: Lab) -> Path:
    assert isinstance(lab.engine, LocalEngine)
    return lab.engine.folder("gang")


def rewrite(path: Path, version: int | None) -> None:
    """Give a record another version; None: as the first release wrote it."""
    record = json.loads(path.read_text())
    assert record.pop("version") == VERSION
    path.write_text(json.dumps(record if version is None else record | {"version": version}))


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_a_newer_release_are_refused(lab: Lab, name: str) -> None:
    lab.run(lab.process("h", "true"))
    path = run_of(lab) / name
    rewrite(path, VERSION + 1)
    message = (
        f"{path} was written by a newer Cloche (version {VERSION + 1} of what runs; this one reads "
        f"up to {VERSION}). Nothing was changed. Update Cloche."
    )
    with pytest.raises(EngineError) as refused:
        lab.make().see("gang")
    assert str(refused.value) == message
    rewritten = json.loads(path.read_text())
    path.write_text(json.dumps(rewritten | {"version": VERSION}))
    assert outcomes(lab.make().see("gang") or {}) == {"h": (0, None)}


def test_a_gang_of_the_first_release_goes_on(lab: Lab) -> None:
    """Its supervisor can't tell of endings: they are found out, also that it was killed."""
    for name in ("gang", "killed"):
        lab.place(
            GangSpec(name=name, processes=(lab.process(name[0], "sleep 99"),), background=True)
        )
        assert isinstance(lab.engine, LocalEngine)
        for record in ("plan.json", "state.json"):
            rewrite(lab.engine.folder(name) / record, None)
    heard: list[str] = []
    lab.engine = lab.make()
    lab.engine.on_ended(heard.append)
    lab.engine.stop("gang")
    wait_until(lambda: "gang" in heard)
    assert outcomes(lab.finished()) == {"g": (-15, "Stopped")}
    assert "killed" not in heard
    lab.kill_supervisor("killed")
    wait_until(lambda: "killed" in heard)
    assert {one.state for one in lab.finished("killed").values()} == {"lost"}
    lab.engine.forget("gang")


@pytest.mark.parametrize("content", ["", '{"version": 2, "proc', "[]", "null", '"text"'])
@pytest.mark.parametrize("name", ["plan.json", "state.json"])
def test_a_record_that_is_not_whole_is_its_own_gangs_trouble(
    lab: Lab, name: str, content: str
) -> None:
    """A server that was killed while it wrote one, or a loss of power, stops no start."""
    lab.run(lab.process("h", "true"))
    run = run_of(lab)
    (run.parent / "half").mkdir()
    (run.parent / "half" / "lock").touch()
    (run.parent / "half" / name).write_text(content)
    engine = lab.make()
    assert outcomes(engine.see("gang") or {}) == {"h": (0, None)}
    assert not outcomes(engine.see("half") or {})


def test_a_plan_is_there_whole_or_not_at_all(lab: Lab) -> None:
    """It is renamed into place: nobody opens its name to write."""
    opened: list[int] = []
    renamed: list[str] = []
    watching = [True]

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open" and str(arguments[0]).endswith("/plan.json"):
            opened.append(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event == "os.rename":
            renamed.append(str(arguments[1]))

    sys.addaudithook(look)
    lab.run(lab.process("h", "true"))
    watching.clear()
    assert str(run_of(lab) / "plan.json") in renamed
    assert not any(opened)
