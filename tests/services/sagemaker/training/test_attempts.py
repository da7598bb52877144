"""Jobs that start over: interrupted spot instances, lost machines, and when it takes too long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer
from training_world import World, statuses

from cloche.core.typed import encode
from cloche.services.sagemaker.training import attempts
from cloche.services.sagemaker.training.status import SecondaryStatus as S
from cloche.services.sagemaker.training.status import TrainingJobStatus
from cloche.testing.platform import Platform

CHECKPOINTS = {"CheckpointConfig": {"S3Uri": "s3://bucket/check"}}
SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 100},
}
RETRY = {"RetryStrategy": {"MaximumRetryAttempts": 1}}
FIRST = [S.STARTING, S.DOWNLOADING, S.TRAINING]


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket()
    yield made
    made.close()


async def tag(world: World, value: str) -> None:
    """Ask for an interruption of a job that runs already."""
    resource = world.job().resource
    await world.store.update(
        resource, desired={**resource.desired, "Tags": {attempts.INTERRUPTION: value}}
    )


@pytest.mark.parametrize("restart", [False, True], ids=["one server", "a new one at every step"])
async def test_an_interrupted_job_resumes_from_its_checkpoint(world: World, restart: bool) -> None:
    await world.create(**SPOT, **CHECKPOINTS)
    await tag(world, "5")
    await world.until(S.TRAINING)
    (world.path("/opt/ml/checkpoints") / "epoch").write_text("3")
    world.log("first attempt")
    await world.until(S.INTERRUPTED, restart=restart)
    assert world.job().progress.transitions[-1].message == (
        "The job stopped because the managed spot training instances were interrupted."
    )
    job = await world.until(S.TRAINING, restart=restart)
    assert statuses(job) == [*FIRST, S.INTERRUPTED, *FIRST]
    assert len(world.engine.stopped) == 1 and len(world.engine.launched) == 2
    assert (world.path("/opt/ml/checkpoints") / "epoch").read_text() == "3"
    first, second = (list(world.engine.specs.values())[-1].max_run_s, 60)
    assert first is not None and 50 <= first < second
    for _ in range(10):
        await world.step(restart=restart)
    assert world.job().secondary is S.TRAINING, "one number: one interruption"
    world.engine.end()
    job = await world.until(S.COMPLETED, restart=restart)
    assert job.status is TrainingJobStatus.COMPLETED
    assert attempts.billable_s(job) < (job.progress.ended_ms or 0) / 1000


async def test_the_log_of_each_attempt_is_a_stream_of_its_own(world: World) -> None:
    metric = [{"Name": "loss", "Regex": "Loss: ([0-9.]+)"}]
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.0-cpu-py310"
    algorithm = {"TrainingImage": image, "TrainingInputMode": "File", "MetricDefinitions": metric}
    await world.create(**SPOT, AlgorithmSpecification=algorithm)
    await tag(world, "1")
    await world.until(S.TRAINING)
    world.log("Loss: 0.5")
    before = world.job().progress.stream_s
    await world.until(S.INTERRUPTED)
    job = await world.until(S.TRAINING)
    assert job.progress.stream_s > before
    assert job.progress.metrics["loss"].value == 0.5
    world.log("Loss: 0.25")
    world.engine.end()
    job = await world.until(S.COMPLETED)
    assert job.progress.metrics["loss"].value == 0.25


async def test_max_wait_time_counts_all_attempts(world: World) -> None:
    await world.create(**SPOT)
    await world.until(S.TRAINING)
    world.clock.advance(100)
    job = await world.until(S.MAX_WAIT_TIME_EXCEEDED)
    assert job.status is TrainingJobStatus.STOPPED
    assert statuses(job) == [*FIRST, S.STOPPING, S.UPLOADING, S.MAX_WAIT_TIME_EXCEEDED]


async def test_never_started_within_max_wait_time(world: World) -> None:
    world.engine.full = "no room"
    await world.create(**SPOT)
    await world.until(S.PENDING)
    world.clock.advance(100)
    job = await world.until(S.MAX_WAIT_TIME_EXCEEDED)
    assert statuses(job)[-2:] == [S.STOPPING, S.MAX_WAIT_TIME_EXCEEDED]
    assert world.engine.launched == []


async def test_stopped_while_it_starts_over(world: World) -> None:
    await world.create(**SPOT)
    await tag(world, "0")
    await world.until(S.INTERRUPTED)
    job = world.job()
    await world.store.update(
        job.resource,
        status=TrainingJobStatus.STOPPING,
        document=encode(job.progress.go(S.STOPPING, world.clock.now())),
    )
    assert (await world.until(S.STOPPED)).status is TrainingJobStatus.STOPPED
    assert len(world.engine.launched) == 1


@pytest.mark.parametrize("how", ["supervisor", "machine"])
async def test_a_lost_host_is_tried_again(world: World, how: str) -> None:
    await world.create(**RETRY, **CHECKPOINTS)
    for attempt in range(2):
        await world.until(S.TRAINING)
        (world.path("/opt/ml/checkpoints") / f"of{attempt}").write_text("x")
        if how == "supervisor":
            world.engine.lose()
        else:
            world.engine.states.clear()
        await world.step()
        if attempt == 0:
            last = world.job().progress.transitions[-1]
            assert last.status is S.RESTARTING and last.message.startswith("InternalServerError: ")
    job = await world.until(S.FAILED)
    assert (job.progress.failure or "").startswith("InternalServerError: ")
    assert statuses(job)[:7] == [*FIRST, S.RESTARTING, *FIRST]
    assert world.keys("check/") == ["check/of0", "check/of1"]


async def test_what_the_script_did_wrong_is_not_tried_again(world: World) -> None:
    await world.create(**RETRY)
    await world.until(S.TRAINING)
    world.engine.end(1)
    assert S.RESTARTING not in statuses(await world.until(S.FAILED))


async def test_hosts_that_do_not_start_are_tried_again(world: World) -> None:
    world.engine.broken = "no namespaces"
    await world.create(**RETRY)
    await world.until(S.RESTARTING)
    world.engine.broken = None
    await world.until(S.TRAINING)


@pytest.mark.parametrize(
    ("text", "found"), [("", []), ("3", [3.0]), ("0.5 7", [0.5, 7.0])], ids=repr
)
def test_seconds_of_the_tag(text: str, found: list[float]) -> None:
    assert attempts.seconds(text) == found


COUNTS = """
import os, signal, sys, time
folder = '/opt/ml/checkpoints'
done = len(os.listdir(folder))
print('starts with', done, flush=True)
def end(*_):
    open(folder + '/on-sigterm', 'w').write('x')
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(f'{folder}/epoch-{done}', 'w').write('x')
print('READY', flush=True)
while done == 0:
    time.sleep(0.05)
"""


def test_spot_end_to_end(trainer: Trainer) -> None:
    stopping = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    running = trainer.start(
        COUNTS,
        EnableManagedSpotTraining=True,
        StoppingCondition=stopping,
        RetryStrategy={"MaximumRetryAttempts": 3},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/spot"},
    )
    trainer.says(running, "READY")
    trainer.sagemaker.add_tags(
        ResourceArn=trainer.describe(running)["TrainingJobArn"],
        Tags=[{"Key": attempts.INTERRUPTION, "Value": "0"}],
    )
    job = trainer.ended(running)
    log = trainer.log(job["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed", log
    assert [line for line in log.splitlines() if line.startswith("starts with")] == [
        "starts with 0",
        "starts with 2",
    ]
    assert trainer.keys("spot/") == ["spot/epoch-0", "spot/epoch-2", "spot/on-sigterm"]
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Interrupted",
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert job["EnableManagedSpotTraining"] is True
    assert job["StoppingCondition"] == stopping
    assert job["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


SHORT = "It must be present and be greater than or equal to MaxRuntimeInSeconds"
WITHOUT = "It is only supported when EnableManagedSpotTraining is set to true"


@pytest.mark.parametrize(
    ("spot", "stopping", "message"),
    [
        (True, {"MaxRuntimeInSeconds": 60}, SHORT),
        (True, {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}, SHORT),
        (False, {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}, WITHOUT),
    ],
)
def test_max_wait_time_that_can_not_be(
    trainer: Trainer, spot: bool, stopping: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError) as error:
        trainer.start("", EnableManagedSpotTraining=spot, StoppingCondition=stopping)
    assert error.value.response["Error"]["Message"] == f"Invalid MaxWaitTimeInSeconds. {message}"


def test_a_tag_without_numbers_is_refused(trainer: Trainer) -> None:
    with pytest.raises(ClientError, match="must be seconds of training"):
        trainer.start("", Tags=[{"Key": attempts.INTERRUPTION, "Value": "soon"}])
