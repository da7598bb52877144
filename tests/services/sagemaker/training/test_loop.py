"""The loop of training jobs: its whole life, restarts at every step, and what can go wrong."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from training_world import (
    METRIC,
    Killed,
    World,
    algorithm,
    channel,
    config_file,
    statuses,
    stop,
    trainer,
)

from cloche.engine import GangSpec
from cloche.records.store import Conflict
from cloche.services.sagemaker.training.status import SecondaryStatus as S
from cloche.services.sagemaker.training.status import TrainingJobStatus

LIFE = [S.STARTING, S.DOWNLOADING, S.TRAINING, S.UPLOADING, S.COMPLETED]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket(in__a="A", in__b__c="C")
    yield made
    made.close()


async def test_life(world: World) -> None:
    trainer(world)
    await world.create(
        AlgorithmSpecification=algorithm(MetricDefinitions=METRIC),
        InputDataConfig=[channel("training", "s3://bucket/in")],
    )
    await world.until(S.TRAINING)
    spec = world.engine.specs[world.engine.launched[0]]
    assert (spec.max_run_s, spec.stop_grace_s, spec.egress) == (60, 120, True)
    process = spec.processes[0]
    assert process.argv[1:] == ("/opt/cloche/runtime/training.py", "/opt/cloche/sourcedir.tar.gz")
    assert (process.cpus, process.memory_mib) == (4, 16384)
    assert process.env["OMP_NUM_THREADS"] == process.env["SM_NUM_CPUS"] == "2"
    assert (world.path("/opt/ml/input/data/training/b/c")).read_text() == "C"
    overlay = [m for m in process.mounts if m.target == "/opt/ml/input/data/training"]
    assert [m.mode for m in overlay] == ["overlay"]
    await world.step()
    assert world.engine.launched[0] in world.doors.opened
    world.engine.end()
    job = await world.until(S.COMPLETED)
    assert statuses(job) == LIFE
    assert job.status is TrainingJobStatus.COMPLETED
    assert world.keys() == ["out/job/output/model.tar.gz", "out/job/output/output.tar.gz"]
    assert world.tar("out/job/output/model.tar.gz") == {"model.pth": b"weights"}
    assert world.tar("out/job/output/output.tar.gz") == {"curve.csv": b"1,2"}
    assert {name: m.value for name, m in job.progress.metrics.items()} == {"loss": 0.25}
    found = [(d.name, dict(d.dimensions), d.value) for d in world.cloudwatch.data]
    assert [f for f in found if f[0] == "loss"] == [
        ("loss", {"TrainingJobName": "job"}, 0.5),
        ("loss", {"TrainingJobName": "job"}, 0.25),
    ]
    assert world.engine.forgotten == world.doors.closed == world.engine.launched
    assert not any(world.config.home.instances.iterdir())
    ends = [t.end_ms for t in job.progress.transitions]
    assert None not in ends and ends == sorted(ends)  # type: ignore[type-var]
    assert job.progress.transitions[-1].message == "Training job completed"


async def test_the_end_of_the_hosts_has_the_job_looked_at(world: World) -> None:
    """The engine tells of it; what the hosts wrote is collected then, before it is put to S3."""
    looked: list[str] = []
    world.loop.wakers.append(looked.append)
    await world.create(CheckpointConfig={"S3Uri": "s3://bucket/kept", "LocalPath": "/kept"})
    await world.until(S.TRAINING)
    (gang,), ended = world.engine.launched, world.sagemaker.gangs.ended
    looked.clear()
    ended("another")
    assert looked == []
    ended(gang)
    assert looked == [world.job().resource.arn]
    world.restart()
    world.loop.wakers.append(looked.append)
    await world.step()
    ended(gang)
    assert looked == [world.job().resource.arn] * 2
    world.engine.end()
    world.engine.collected.clear()
    await world.until(S.COMPLETED)
    staged = {m.target: Path(m.source.place) for m in world.engine.specs[gang].processes[0].mounts}
    assert {(gang, staged["/opt/ml"]), (gang, staged["/kept"])} <= set(world.engine.collected)
    looked.clear()
    ended(gang)
    assert looked == []


async def test_a_new_server_at_every_step_finishes_the_job_once(world: World) -> None:
    trainer(world)
    await world.create(AlgorithmSpecification=algorithm(MetricDefinitions=METRIC))
    await world.until(S.TRAINING, restart=True)
    await world.step(restart=True)
    world.engine.end()
    job = await world.until(S.COMPLETED, restart=True)
    assert statuses(job) == LIFE
    assert len(world.engine.launched) == 1
    assert len([d for d in world.cloudwatch.data if d.name == "loss"]) == 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(6))
async def test_killed_around_every_write(world: World, number: int, when: str) -> None:
    """The server dies just before, or just after, its n-th write of the record."""
    trainer(world)
    await world.create(AlgorithmSpecification=algorithm(MetricDefinitions=METRIC))
    writes = world.die_at(number, when)
    for _ in range(20):
        try:
            await world.step()
        except Killed:
            world.restart()
        if world.job().secondary is S.TRAINING and world.job().progress.metrics:
            world.engine.end()
    job = world.job()
    assert statuses(job) == LIFE
    assert len(world.engine.launched) == 1
    assert world.tar("out/job/output/model.tar.gz") == {"model.pth": b"weights"}
    assert job.progress.metrics["loss"].value == 0.25
    assert not any(world.config.home.instances.iterdir())
    assert writes == [7 if when == "before" else 6], "the life of this job takes six writes"


@pytest.mark.parametrize("number", range(2))
async def test_killed_between_two_artifacts(world: World, number: int) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()
    real, puts = world.s3.put_file, 0

    async def put_file(*args: Any, **kwargs: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == number + 1:
            raise Killed
        return await real(*args, **kwargs)

    world.s3.put_file = put_file  # type: ignore[method-assign]
    with pytest.raises(Killed):
        for _ in range(5):
            await world.step()
    world.restart()
    assert statuses(await world.until(S.COMPLETED)) == LIFE
    assert world.keys() == ["out/job/output/model.tar.gz", "out/job/output/output.tar.gz"]


async def test_killed_while_the_input_is_presented(world: World) -> None:
    await world.create(InputDataConfig=[channel("training", "s3://bucket/in")])
    await world.until(S.DOWNLOADING)
    real = world.s3.link

    def link(stored: Any, destination: Path) -> None:
        real(stored, destination)
        raise Killed

    world.s3.link = link  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await world.step()
    world.s3.link = real  # type: ignore[method-assign]
    world.restart()
    await world.until(S.TRAINING)
    assert sorted(os.listdir(world.path("/opt/ml/input/data/training"))) == ["a", "b"]


@pytest.mark.parametrize("where", [S.STARTING, S.DOWNLOADING])
async def test_stopped_before_it_ran(world: World, where: S) -> None:
    await world.create()
    await world.until(where)
    await stop(world)
    job = await world.until(S.STOPPED)
    assert job.status is TrainingJobStatus.STOPPED
    assert world.engine.launched == [] and world.keys() == []
    assert (job.progress.ended_ms is None) == (where is S.STARTING)


async def test_stopped_while_it_runs_keeps_the_artifacts(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    await stop(world)
    job = await world.until(S.STOPPED)
    assert statuses(job) == [*LIFE[:3], S.STOPPING, S.UPLOADING, S.STOPPED]
    assert world.engine.stopped == world.engine.launched
    assert "out/job/output/model.tar.gz" in set(world.keys())
    assert job.progress.failure is None


async def test_stop_that_comes_while_it_is_launched(world: World) -> None:
    """The step that launches loses against StopTrainingJob; the next one stops the hosts."""
    await world.create()
    await world.until(S.DOWNLOADING)
    (resource,) = world.loop.load()
    await stop(world)
    with pytest.raises(Conflict):
        await world.loop.step(resource)
    job = await world.until(S.STOPPED)
    assert world.engine.stopped == world.engine.launched == [*world.engine.launched[:1]]
    assert job.status is TrainingJobStatus.STOPPED


async def test_stop_that_comes_too_late_changes_nothing(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()
    await world.until(S.UPLOADING)
    await stop(world)
    job = await world.until(S.COMPLETED)
    assert job.status is TrainingJobStatus.COMPLETED and statuses(job) == LIFE


async def test_max_runtime(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(-15, "MaxRuntimeExceeded")
    job = await world.until(S.MAX_RUNTIME_EXCEEDED)
    assert job.status is TrainingJobStatus.STOPPED
    assert job.progress.transitions[-1].message == (
        "Training job runtime exceeded MaxRuntimeInSeconds provided"
    )
    assert "out/job/output/model.tar.gz" in set(world.keys())


async def test_waits_for_capacity_and_says_so(world: World) -> None:
    world.engine.full = "4 vCPU asked for, 0 of 2 free"
    await world.create()
    job = await world.until(S.PENDING)
    message = "Waiting for capacity: 4 vCPU asked for, 0 of 2 free"
    assert job.progress.transitions[-1].message == message
    version = job.resource.version
    await world.step()
    assert world.job().resource.version == version, "waiting writes nothing"
    world.engine.full = None
    job = await world.until(S.TRAINING, restart=True)
    assert statuses(job) == [S.STARTING, S.PENDING, S.DOWNLOADING, S.TRAINING]


async def test_older_job_goes_first(world: World) -> None:
    world.engine.full = "taken"
    await world.create("older")
    await world.until(S.PENDING, "older")
    world.engine.full = None
    await world.create("younger")
    (older, younger) = world.loop.load()
    await world.loop.step(younger)
    await world.loop.step(world.job("younger").resource)
    assert world.job("younger").secondary is S.PENDING
    assert world.job("younger").progress.transitions[-1].message == (
        "Waiting for capacity: older training jobs are waiting: older"
    )
    await world.loop.step(older)
    await world.until(S.TRAINING, "younger")
    assert [spec.split("-")[0] for spec in world.engine.launched] == ["older", "younger"]


async def test_hosts_that_do_not_start_fail_the_job(world: World) -> None:
    world.engine.broken = "no such interpreter"
    await world.create()
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        "InternalServerError: The hosts did not start: no such interpreter"
    )


async def test_input_that_went_away_fails_the_job(world: World) -> None:
    await world.create(InputDataConfig=[channel("training", "s3://bucket/gone/")])
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        "ClientError: Data download failed:No S3 objects found under S3 URL s3://bucket/gone/"
    )
    assert statuses(job) == [S.STARTING, S.DOWNLOADING, S.FAILED]
    assert job.progress.ended_ms is not None


async def test_missing_output_bucket_fails_the_job(world: World) -> None:
    await world.create(OutputDataConfig={"S3OutputPath": "s3://nowhere/out"})
    failure = (await world.until(S.FAILED)).progress.failure
    assert failure is not None and "NoSuchBucket" in failure


async def test_two_hosts(world: World) -> None:
    def program(spec: GangSpec) -> None:
        for host in ("algo-1", "algo-2"):
            world.path("/opt/ml/model/same", host).write_text(host)
            world.path(f"/opt/ml/model/{host}", host).write_text(host)
            world.log(f"Loss: {host[-1]}", host)

    world.engine.program = program
    sharded = {"S3DataDistributionType": "ShardedByS3Key"}
    await world.create(
        AlgorithmSpecification=algorithm(MetricDefinitions=METRIC),
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2},
        InputDataConfig=[
            channel("all", "s3://bucket/in/"),
            channel("part", "s3://bucket/in/", **sharded),
        ],
    )
    await world.until(S.TRAINING)
    spec = world.engine.specs[world.engine.launched[0]]
    assert [p.name for p in spec.processes] == ["algo-1", "algo-2"]
    shares = [
        sorted(os.listdir(world.path("/opt/ml/input/data/part", host)))
        for host in ("algo-1", "algo-2")
    ]
    assert shares == [["a"], ["b"]]
    assert sorted(os.listdir(world.path("/opt/ml/input/data/all", "algo-2"))) == ["a", "b"]
    resources = config_file(world, "resourceconfig.json", "algo-2")
    assert resources["current_host"] == "algo-2" and resources["hosts"] == ["algo-1", "algo-2"]
    assert config_file(world, "inputdataconfig.json")["part"] == {
        "TrainingInputMode": "File",
        "S3DistributionType": "ShardedByS3Key",
        "RecordWrapperType": "None",
    }
    world.engine.end(0)
    await world.step()
    assert world.job().secondary is S.TRAINING, "one host still runs"
    world.engine.end(0, host="algo-2")
    await world.until(S.COMPLETED)
    assert world.tar("out/job/output/model.tar.gz") == {
        "algo-1": b"algo-1",
        "same": b"algo-1",
        "algo-2": b"algo-2",
    }
    assert len([d for d in world.cloudwatch.data if d.name == "loss"]) == 2


async def test_one_failed_host_stops_the_others(world: World) -> None:
    await world.create(ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2})
    await world.until(S.TRAINING)
    world.path("/opt/ml/output/failure", "algo-2").write_text("second")
    world.engine.end(1, host="algo-2")
    job = await world.until(S.FAILED)
    assert world.engine.stopped == world.engine.launched
    assert job.progress.failure == "AlgorithmError: second, exit code: 1, host: algo-2"


async def test_use_of_cpu_and_memory(world: World) -> None:
    await world.create()
    await world.until(S.TRAINING)
    for _ in range(60):
        await world.step()
    cpu = [d for d in world.cloudwatch.data if d.name == "CPUUtilization"]
    memory = [d for d in world.cloudwatch.data if d.name == "MemoryUtilization"]
    assert [d.value for d in cpu] == [pytest.approx(150.0)] * len(cpu)
    between = [(b.at - a.at).total_seconds() for a, b in itertools.pairwise(cpu)]
    assert between[0] == 1 and between[-1] == 5 and between == sorted(between)
    assert {tuple(d.dimensions.items()) for d in cpu + memory} == {(("Host", "job/algo-1"),)}
    assert {d.value for d in memory} == {25.0}, "1 GiB of the 4 that the machine has"


async def test_isolated_network_has_no_way_to_the_platform(world: World) -> None:
    await world.create(EnableNetworkIsolation=True)
    await world.until(S.TRAINING)
    await world.step()
    spec = world.engine.specs[world.engine.launched[0]]
    assert spec.egress is False and not world.doors.opened
    assert not [n for n in spec.processes[0].env if "PROXY" in n.upper() or "ENDPOINT" in n]


async def test_entrypoint_of_the_request_runs_as_given(world: World) -> None:
    await world.create(
        HyperParameters={},
        AlgorithmSpecification=algorithm(
            ContainerEntrypoint=["/bin/bash"], ContainerArguments=["-c", "true && x"]
        ),
        Environment={"MINE": "1", "AWS_REGION": "mars"},
    )
    await world.until(S.TRAINING)
    process = world.engine.specs[world.engine.launched[0]].processes[0]
    assert process.argv == ("/bin/bash", "-c", "true && x")
    assert (process.env["MINE"], process.env["AWS_REGION"]) == ("1", "mars")


async def test_log_begins_with_what_really_runs(world: World) -> None:
    await world.create()
    await world.until(S.TRAINING)
    log = world.engine.specs[world.engine.launched[0]].processes[0].log
    assert log is not None
    first = Path(log.place).read_text().splitlines()
    assert len(first) == 1 and "Cloche runs pytorch: Python 3" in first[0]
    assert "torch" in first[0] and "pytorch-training:1.8-cpu-py36" in first[0]


async def test_lines_longer_than_one_read_are_all_searched(world: World) -> None:
    await world.create(AlgorithmSpecification=algorithm(MetricDefinitions=METRIC))
    await world.until(S.TRAINING)
    await asyncio.to_thread(world.log, "\n".join(["x" * 1000] * 3000 + ["Loss: 7"]))
    world.engine.end()
    assert (await world.until(S.COMPLETED)).progress.metrics["loss"].value == 7
