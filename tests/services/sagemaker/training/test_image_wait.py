"""Jobs and endpoints whose environment is not built yet: they wait for it, together."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killable import Killable
from serving_client import deploy, settled
from training_client import Trainer, source, wait_for
from training_world import World, trainer

from cloche.core.config import Home
from cloche.environments import added, background
from cloche.environments.added import add
from cloche.environments.background import Files
from cloche.environments.ready import folder_of, ready
from cloche.services.sagemaker.training.status import SecondaryStatus
from cloche.testing.wheel import write_wheel

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
MINE, BROKEN = f"{REGISTRY}/team/app:7", f"{REGISTRY}/team/broken:7"
APP, NEVER = ("app", "clochetiny==1.2"), ("broken", "clochetiny==9")
MESSAGE = "Downloading the training image: building its environment app, once, with clochetiny==1.2"
SCRIPT = "import clochetiny\nprint('answer', clochetiny.ANSWER)"
CODE = """
import clochetiny
def model_fn(_): return clochetiny.ANSWER
def transform_fn(model, body, kind, accept): return str(model)
"""
S = SecondaryStatus


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, str]:
    """Return the variables by which pip finds a package, without a registry."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "clochetiny", "1.2", "ANSWER = 42\n")
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Keep every build waiting."""
    home.environments.mkdir(parents=True, exist_ok=True)
    with (home.environments / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def server(tmp_path: Path, wheels: dict[str, str]) -> Iterator[Killable]:
    """A server that knows two images: one can be built, the other can't."""
    made = Killable(tmp_path / "home", **wheels)
    made.up()
    for name, package in (APP, NEVER):
        add(Home(made.home), name, [f"team/{name}"], [package], replace=False)
    yield made
    background.stop(Home(made.home))
    made.kill_all()
    made.until(lambda: not background.under_way(Home(made.home)))


def start(user: Trainer, image: str, script: str = SCRIPT) -> str:
    return user.start(script, AlgorithmSpecification={"TrainingImage": image})


def last(user: Trainer, name: str) -> tuple[str, str]:
    """Return a job's newest transition and its message."""
    found = user.describe(name)["SecondaryStatusTransitions"][-1]
    return found["Status"], found["StatusMessage"]


def waits(user: Trainer, name: str) -> None:
    """Return once the job waits, and its log has what the build says."""
    user.says(name, "[app] Waiting for another build to end")
    wait_for(lambda: last(user, name) == ("Downloading", MESSAGE))


def check_log(log: str) -> None:
    """The build's lines are there once, then the heading, then the job's own."""
    lines = log.splitlines()
    assert lines[0] == "[app] Building the environment app: clochetiny==1.2"
    for line in ("[app] Successfully installed clochetiny-1.2", "answer 42"):
        assert lines.count(line) == 1, log
    headings = [line for line in lines if line.startswith("Cloche runs app: Python 3.")]
    assert len(headings) == 1 and headings[0].endswith(f", clochetiny 1.2 (asked for: {MINE})")
    built = [number for number, line in enumerate(lines) if line.startswith("[app] ")]
    assert built == list(range(len(built))) and len(set(lines[: len(built)])) == len(built)
    assert lines.index(headings[0]) == len(built)


def test_two_jobs_and_an_endpoint_build_once_through_a_kill(server: Killable) -> None:
    home, user, sagemaker = Home(server.home), Trainer(server), server.client("sagemaker")
    uri = user.put("model.tar.gz", source({"code/inference.py": CODE}))
    with held(home):
        names = [start(user, MINE), start(user, MINE)]
        for name in names:
            waits(user, name)
        deploy(sagemaker, user.role, "mine", MINE, uri)
        server.kill()
        assert background.under_way(home) == ["app"]  # it goes on without the server
        for name in names:
            assert last(user, name) == ("Downloading", MESSAGE)
    for name in names:
        job = user.ended(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        moved = [(t["Status"], t["StatusMessage"]) for t in job["SecondaryStatusTransitions"]]
        # What is said of the phase once the image is there. One may wait for the other's CPUs, and
        # downloads again when its turn comes.
        phases = [status for status, _ in moved if status not in ("Downloading", "Pending")]
        assert phases == ["Starting", "Training", "Uploading", "Completed"]
        assert [text for status, text in moved if status == "Downloading"][-1] == (
            "Downloading input data"
        )
        check_log(user.log(name))
    log = Files(folder_of(added.named("app", home), home)).log.read_text()
    assert log.count("Making a virtual environment") == 1
    assert settled(sagemaker, "mine")["EndpointStatus"] == "InService"
    answer = server.client("sagemaker-runtime").invoke_endpoint(EndpointName="mine", Body=b"")
    assert answer["Body"].read() == b"42"
    sagemaker.delete_endpoint(EndpointName="mine")
    server.until(lambda: not sagemaker.list_endpoints()["Endpoints"])


def test_server_and_build_killed(server: Killable) -> None:
    home, user = Home(server.home), Trainer(server)
    with held(home):
        name = start(user, MINE)
        waits(user, name)
        server.kill_all()
        background.stop(home)
        server.until(lambda: not background.under_way(home))
    server.up()
    job = user.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = user.log(name).splitlines()
    assert lines.count("[app] Building the environment app: clochetiny==1.2") == 2  # both builds
    assert lines.count("[app] Successfully installed clochetiny-1.2") == 1
    assert lines.count("answer 42") == 1


def test_build_that_fails(server: Killable) -> None:
    home, user, sagemaker = Home(server.home), Trainer(server), server.client("sagemaker")
    said = (
        "The environment broken was not built: pip ended with exit code 1. To try again: "
        f"cloche image build broken --home {server.home}\n"
    )
    reason = "ERROR: No matching distribution found for clochetiny==9"
    uri = user.put("model.tar.gz", source({"code/inference.py": CODE}))
    with held(home):
        names = [start(user, BROKEN), start(user, BROKEN)]
        deploy(sagemaker, user.role, "broken", BROKEN, uri)
        for name in names:
            user.says(name, "[broken] Waiting for another build to end")
    for name in names:
        job = user.ended(name)
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith(f"ClientError: {said}")
        assert job["FailureReason"].endswith(reason)
        assert f"[broken] {reason}" in user.log(name).splitlines()
    found = settled(sagemaker, "broken")
    assert found["EndpointStatus"] == "Failed" and found["FailureReason"].startswith(said)
    again = user.ended(start(user, BROKEN))  # tries again, and says so again
    assert again["FailureReason"].startswith(f"ClientError: {said}")
    assert user.log(again["TrainingJobName"]).splitlines()[0].startswith("[broken] Building")


def test_stopped_while_it_waits(server: Killable) -> None:
    home, user, sagemaker = Home(server.home), Trainer(server), server.client("sagemaker")
    with held(home):
        name = start(user, MINE)
        waits(user, name)
        sagemaker.stop_training_job(TrainingJobName=name)
        job = user.ended(name)
        assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
        assert background.under_way(home) == ["app"]
    # The build goes on: the next job finds it.
    server.until(lambda: ready(added.named("app", home), home) is not None)
    job = user.ended(start(user, MINE))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert user.log(job["TrainingJobName"]).splitlines()[0].startswith("Cloche runs app: ")


def down(server: Killable, *options: str) -> str:
    command = [sys.executable, "-m", "cloche", "down", "--home", str(server.home), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_down_leaves_a_build_or_ends_it(server: Killable) -> None:
    home, user = Home(server.home), Trainer(server)
    with held(home):
        name = start(user, MINE)
        waits(user, name)
        said = " ".join(down(server).split())
        assert f"1 job ({name}) keeps running" in said
        assert said.endswith("The environment app is still being built.")
        assert background.under_way(home) == ["app"]
        server.up()
        assert "goes on" not in down(server, "--stop-jobs")
        server.until(lambda: not background.under_way(home))
    server.up()
    assert user.ended(name)["TrainingJobStatus"] == "Stopped"


async def test_what_pip_says_is_no_metric(
    tmp_path: Path, wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop forgets everything between any two steps, and loses and repeats no line."""
    for name, value in wheels.items():
        monkeypatch.setenv(name, value)
    world = World(tmp_path / "world")
    home = world.config.home
    add(home, *APP[:1], ["team/app"], [APP[1]], replace=False)
    await world.bucket()
    await world.create(
        AlgorithmSpecification={
            "TrainingImage": MINE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "any", "Regex": r"(?:Loss: |clochetiny==)([0-9.]+)"}],
        }
    )
    trainer(world)
    with held(home):
        for _ in range(6):
            await world.step(restart=True)
        assert world.job().progress.transitions[-1].message == MESSAGE
        assert not world.engine.launched
    wait_for(lambda: not background.under_way(home))
    job = await world.until(S.TRAINING, restart=True)
    assert job.progress.transitions[-2].message == "Downloading input data"
    world.engine.end()
    job = await world.until(S.COMPLETED, restart=True)
    assert [d.value for d in world.cloudwatch.data if d.name == "any"] == [0.5, 0.25]
    (log,) = home.logs.glob("**/job*.log")
    texts = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert texts.count("[app] Successfully installed clochetiny-1.2") == 1
    assert texts.count("[app] Building the environment app: clochetiny==1.2") == 1
    world.close()
