"""A job's requirements.txt as a layer over the environment, through boto3 on a whole platform.

Packages come from an index on this machine, which tells how often it was asked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from package_index import HOST, Index
from training_client import Trainer, source, wait_for

from cloche.engine import Seen
from cloche.engine.local.probe import probe
from cloche.services.sagemaker.gangs import LAYER
from cloche.testing import platform as platforms
from cloche.testing.platform import Platform

pytestmark = pytest.mark.skipif(probe().isolation != "full", reason="layers need sandboxes")
SCRIPT = "import clochetestwheel; print('VALUE', clochetestwheel.VALUE, {})"
ADDS = "requirements.txt adds to the environment, since "
SATISFIED = "numpy\n"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path) as index:
        yield index


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with platforms.start(tmp_path / "home", allow_egress=(f"{HOST}/32",)) as platform:
        yield platform


@pytest.fixture
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def start(trainer: Trainer, index: Index, script: str, requirements: str, **more: Any) -> str:
    """Start a job whose archive has these two files."""
    files = {"hpo.py": script, "requirements.txt": requirements}
    uri = trainer.put(f"code-{trainer.number}/sourcedir.tar.gz", source(files))
    hyperparameters = {"sagemaker_program": '"hpo.py"', "sagemaker_submit_directory": f'"{uri}"'}
    return trainer.start(HyperParameters=hyperparameters, Environment=index.settings, **more)


def completed(trainer: Trainer, name: str) -> str:
    job, log = trainer.ended(name), trainer.log(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log)
    return log


def test_installed_once(trainer: Trainer, index: Index, platform: Platform) -> None:
    """The second job, with another script, finds what the first one's requirements installed."""
    first = completed(trainer, start(trainer, index, SCRIPT.format(1), "clochetestwheel\n"))
    second = completed(trainer, start(trainer, index, SCRIPT.format(2), "clochetestwheel\n"))
    for number, log in enumerate((first, second), 1):
        lines = log.splitlines()
        assert lines[1].startswith(ADDS) and lines[1].endswith(": clochetestwheel-1.0")
        assert f"VALUE 42 {number}" in lines
        assert "The dependencies from requirements.txt are installed." in log
        assert "pip install" not in log
    assert index.downloads == 1
    assert importlib.util.find_spec("clochetestwheel") is None
    (layer,) = platform.home.layers.iterdir()
    assert sorted(path.name for path in layer.iterdir()) == [
        "layer.json",
        "requirements.txt",
        "upper",
    ]
    assert json.loads((layer / "layer.json").read_text())["installed"] == ["clochetestwheel-1.0"]


def test_other_requirements_are_another_layer(
    trainer: Trainer, index: Index, platform: Platform
) -> None:
    for text in ("clochetestwheel\n", "clochetestwheel==1.0\n"):
        completed(trainer, start(trainer, index, SCRIPT.format(1), text))
    assert len(list(platform.home.layers.iterdir())) == 2


def test_jobs_that_wait_for_the_same(
    trainer: Trainer, index: Index, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that are started while pip runs wait for it; what they wait for is told.

    They are woken by its end: nobody asks the engine for it time and again.
    """
    engine, looked = platform.app.engine, list[str]()
    see = engine.see

    def counted(gang: str) -> Mapping[str, Seen] | None:
        looked.append(gang)
        return see(gang)

    monkeypatch.setattr(engine, "see", counted)
    index.open.clear()
    names = [start(trainer, index, SCRIPT.format(n), "clochetestwheel\n") for n in range(3)]
    for name in names:
        wait_for(lambda name=name: message(trainer, name) == "Installing requirements.txt")
    assert trainer.describe(names[0])["SecondaryStatus"] == "Downloading"
    index.open.set()
    for number, name in enumerate(names):
        assert f"VALUE 42 {number}" in completed(trainer, name).splitlines()
    assert index.downloads == 1
    assert 0 < sum(gang.startswith(LAYER) for gang in looked) <= 2 * len(names)


def message(trainer: Trainer, name: str) -> str:
    """Return the message of the job's newest transition."""
    text: str = trainer.describe(name)["SecondaryStatusTransitions"][-1]["StatusMessage"]
    return text


def test_a_job_that_is_stopped_meanwhile(trainer: Trainer, index: Index) -> None:
    index.open.clear()
    name = start(trainer, index, SCRIPT.format(1), "clochetestwheel\n")
    wait_for(lambda: message(trainer, name) == "Installing requirements.txt")
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    assert trainer.ended(name)["TrainingJobStatus"] == "Stopped"
    index.open.set()
    again = start(trainer, index, SCRIPT.format(2), "clochetestwheel\n")
    assert "VALUE 42 2" in completed(trainer, again).splitlines()


def test_pip_fails(trainer: Trainer, index: Index, platform: Platform) -> None:
    """The job itself tells what pip says, and the next job tries again."""
    for _ in range(2):
        name = start(trainer, index, "print('ran')", "no-such-package==1\n")
        reason = trainer.ended(name)["FailureReason"]
        assert reason.startswith("AlgorithmError: InstallRequirementsError:\nExitCode 1\n")
        assert "No matching distribution found for no-such-package==1" in reason
        assert "ran" not in trainer.log(name).splitlines()
    assert sum("no-such-package" in path for path in index.asked) >= 4
    assert not list(platform.home.layers.iterdir())


def test_a_private_mirror_is_refused_with_what_allows_it(trainer: Trainer) -> None:
    settings = {"PIP_INDEX_URL": "https://10.255.255.1/simple/", "PIP_RETRIES": "1"}
    uri = trainer.put("mirror/sourcedir.tar.gz", source({"hpo.py": "", "requirements.txt": "x\n"}))
    named = {"sagemaker_program": '"hpo.py"', "sagemaker_submit_directory": f'"{uri}"'}
    job = trainer.ended(trainer.start(HyperParameters=named, Environment=settings))
    reason = job["FailureReason"]
    assert reason.startswith(
        "AlgorithmError: InstallRequirementsError:\nExitCode 1\n"
        'ErrorMessage "The proxy answered 403 Forbidden: 10.255.255.1 is not public, '
        "cloche up --allow-egress 10.255.255.1 allows it\nERROR: "
    )
    assert "ERROR: No matching distribution found for x" in reason


def test_isolated_jobs_have_none(trainer: Trainer, index: Index, platform: Platform) -> None:
    """Without a network pip reaches nothing, as on AWS, though a layer may be there."""
    completed(trainer, start(trainer, index, SCRIPT.format(1), "clochetestwheel\n"))
    name = start(trainer, index, SCRIPT.format(2), "clochetestwheel\n", EnableNetworkIsolation=True)
    assert trainer.ended(name)["FailureReason"].startswith(
        "AlgorithmError: InstallRequirementsError:"
    )


def test_the_server_dies_while_pip_runs(tmp_path: Path, index: Index) -> None:
    """pip goes on, and the next server has what it installed."""
    index.open.clear()
    home, more = tmp_path / "home", {"port": platforms.free_port(), "allow_egress": (f"{HOST}/32",)}
    with platforms.start(home, **more) as platform:
        trainer = Trainer(platform)
        name = start(trainer, index, SCRIPT.format(1), "clochetestwheel\n")
        wait_for(lambda: index.asked)
        platform.stop(end_gangs=False)
    index.open.set()
    with platforms.start(home, **more) as platform:
        trainer = Trainer(platform)
        assert "VALUE 42 1" in completed(trainer, name).splitlines()


def test_what_is_left_is_cleared_at_the_start(tmp_path: Path) -> None:
    """What a killed installation left, and a layer that nobody has used for 30 days."""
    layers = tmp_path / "home/layers"
    manifest = json.dumps({"installed": [], "built": "2026-01-01T00:00:00+00:00"})
    for name, whole, days in (("cut-off", False, 0), ("old", True, 31), ("used", True, 29)):
        (layers / name / "upper").mkdir(parents=True)
        if whole:
            (layers / name / "layer.json").write_text(manifest)
        since = time.time() - days * 86_400
        os.utime(layers / name, (since, since))
    with platforms.start(tmp_path / "home"):
        assert [path.name for path in layers.iterdir()] == ["used"]


def test_pip_ended_while_the_server_was_down(tmp_path: Path, index: Index) -> None:
    """The next server makes a layer of it though nobody asks any more."""
    index.open.clear()
    home, more = tmp_path / "home", {"port": platforms.free_port(), "allow_egress": (f"{HOST}/32",)}
    with platforms.start(home, **more) as platform:
        trainer = Trainer(platform)
        name = start(trainer, index, SCRIPT.format(1), SATISFIED)
        wait_for(lambda: list(platform.home.layers.glob("*")))
        trainer.sagemaker.stop_training_job(TrainingJobName=name)
        trainer.ended(name)
        engine, layers = platform.app.engine, platform.home.layers
        (layer,) = layers.iterdir()
        platform.stop(end_gangs=False)
    wait_for(lambda: ended(engine.see(f"layer-{layer.name}")))
    with platforms.start(home, **more):
        assert (layer / "layer.json").exists()


def ended(seen: Any) -> bool:
    return seen is None or all(one.state == "exited" for one in seen.values())


@pytest.mark.torch
def test_torch_is_imported_before(trainer: Trainer, index: Index) -> None:
    """A script that imports torch starts in an interpreter that has, from the second job on;
    requirements that the environment meets change nothing of that.
    """
    script = "import sys; print('before:', 'torch' in sys.modules)\nimport torch\nprint('ran')"
    logs = [completed(trainer, start(trainer, index, script, SATISFIED)) for _ in range(2)]
    assert [("before: True" in log, "ran" in log) for log in logs] == [(False, True), (True, True)]
    assert all(": nothing, it had all of it" in log.splitlines()[1] for log in logs)


def test_packages_that_only_add(trainer: Trainer, index: Index) -> None:
    """A script whose requirements change nothing of what was imported starts after it, too."""
    script = (
        "import sys; print('before:', 'pandas' in sys.modules)\n"
        "import pandas, clochetestwheel; print('VALUE', clochetestwheel.VALUE)"
    )
    logs = [
        completed(trainer, start(trainer, index, script, "clochetestwheel\n")) for _ in range(2)
    ]
    assert ["before: True" in log for log in logs] == [False, True]
    assert all("VALUE 42" in log.splitlines() for log in logs)
