"""How a job ends: its reason, its archives, whatever the script left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from training_world import World, statuses, trainer

from cloche.core.errors import AwsError
from cloche.engine import GangSpec
from cloche.records.store import StorageFull
from cloche.services.sagemaker.training.loop import FULL_FOR_S
from cloche.services.sagemaker.training.outcome import TRACEBACK, traceback_text
from cloche.services.sagemaker.training.status import SecondaryStatus as S
from cloche.services.sagemaker.training.status import TrainingJobStatus

LIFE = [S.STARTING, S.DOWNLOADING, S.TRAINING, S.UPLOADING, S.COMPLETED]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket()
    yield made
    made.close()


async def test_failure_file_is_the_reason(world: World) -> None:
    def program(spec: GangSpec) -> None:
        world.path("/opt/ml/output/failure").write_text('ExecuteUserScriptError:\nExitCode 1"')

    world.engine.program = program
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(1)
    job = await world.until(S.FAILED)
    assert job.status is TrainingJobStatus.FAILED
    assert job.progress.failure == (
        'AlgorithmError: ExecuteUserScriptError:\nExitCode 1", exit code: 1'
    )
    assert statuses(job) == [*LIFE[:4], S.FAILED]


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        (f"{TRACEBACK}\n  File\nValueError: bad\nmore", 1, "ValueError: bad\nmore, exit code: 1"),
        ("nothing", 3, ", exit code: 3"),
        ("nothing", -9, "Killed by signal 9: SIGKILL (Killed), exit code: 137"),
    ],
)
async def test_reason_without_a_failure_file(
    world: World, log: str, code: int, reason: str
) -> None:
    world.engine.program = lambda spec: world.log(log)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(code)
    assert (await world.until(S.FAILED)).progress.failure == f"AlgorithmError: {reason}"


async def test_reason_is_cut_at_1024_characters(world: World) -> None:
    world.engine.program = lambda spec: world.path("/opt/ml/output/failure").write_text("x" * 5000)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(1)
    failure = (await world.until(S.FAILED)).progress.failure
    assert failure is not None and len(failure) <= 1024 and failure.endswith(", exit code: 1")


async def test_lost_host_fails_the_job(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.lose()
    job = await world.until(S.FAILED)
    assert job.progress.failure is not None
    assert job.progress.failure.startswith("InternalServerError: We encountered an internal error.")


async def test_upload_that_fails_fails_the_job(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)

    async def put_file(*args: Any, **kwargs: Any) -> Any:
        raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)

    world.s3.put_file = put_file  # type: ignore[method-assign]
    world.engine.end()
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        "ClientError: Artifact upload failed:NoSuchBucket: The specified bucket does not exist"
    )


async def test_empty_folders_leave_no_objects(world: World) -> None:
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()
    job = await world.until(S.COMPLETED)
    assert world.keys() == []
    assert job.model_uri == "s3://bucket/out/job/output/model.tar.gz"


async def test_uncompressed_model(world: World) -> None:
    def program(spec: GangSpec) -> None:
        world.path("/opt/ml/model/sub").mkdir()
        world.path("/opt/ml/model/sub/w.bin").write_text("w")
        world.path("/opt/ml/output/data/o.txt").write_text("o")

    world.engine.program = program
    output = {"S3OutputPath": "s3://bucket/out", "CompressionType": "NONE"}
    await world.create(OutputDataConfig=output)
    await world.until(S.TRAINING)
    world.engine.end()
    job = await world.until(S.COMPLETED)
    assert world.keys() == ["out/job/output/model/sub/w.bin", "out/job/output/output.tar.gz"]
    assert job.model_uri == "s3://bucket/out/job/output/model/"


async def test_links_that_the_script_left_lead_nowhere(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")

    def program(spec: GangSpec) -> None:
        world.path("/opt/ml/output/data").rmdir()
        world.path("/opt/ml/output/data").symlink_to(tmp_path / "secret")
        world.path("/opt/ml/model/link").symlink_to(tmp_path / "secret/key")
        world.path("/opt/ml/output/failure").symlink_to(tmp_path / "secret/key")
        os.mkfifo(world.path("/opt/ml/model/pipe"))

    world.engine.program = program
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(1)
    job = await world.until(S.FAILED)
    assert job.progress.failure == "AlgorithmError: , exit code: 1"
    assert world.keys() == ["out/job/output/model.tar.gz"]
    assert world.tar("out/job/output/model.tar.gz") == {"link": None}
    assert (tmp_path / "secret/key").read_text() == "secret"


async def test_full_disk_is_waited_for(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()
    real = world.s3.put_file

    async def put_file(*args: Any, **kwargs: Any) -> Any:
        raise StorageFull

    world.s3.put_file = put_file  # type: ignore[method-assign]
    with pytest.raises(StorageFull):
        for _ in range(5):
            await world.step()
    assert world.job().secondary is S.UPLOADING
    world.s3.put_file = real  # type: ignore[method-assign]
    await world.until(S.COMPLETED)
    assert world.tar("out/job/output/model.tar.gz") == {"model.pth": b"weights"}


@pytest.mark.parametrize("error", [StorageFull(), OSError(errno.ENOSPC, "no")])
async def test_a_disk_that_stays_full_ends_the_job(world: World, error: Exception) -> None:
    """It is no longer kept for artifacts that find no space; what it holds is let go."""
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()

    async def put_file(*args: Any, **kwargs: Any) -> Any:
        raise error

    world.s3.put_file = put_file  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        for _ in range(5):
            await world.step()
    assert world.job().secondary is S.UPLOADING
    assert world.engine.cleared, "what the sandbox left goes first"
    assert not world.engine.forgotten, "with it would go what is to be uploaded"
    world.clock.advance(FULL_FOR_S)
    job = await world.until(S.FAILED)
    assert job.progress.failure == "ClientError: Artifact upload failed:Insufficient disk space"


async def test_memory_is_named_as_the_reason(world: World) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end(-9, "OutOfMemory")
    job = await world.until(S.FAILED)
    assert job.progress.failure == (
        "AlgorithmError: Please use an instance type with more memory, or reduce the size of job "
        "data processed on an instance. (), exit code: 137"
    )


async def test_unreadable_folders_do_not_hold_the_job(world: World) -> None:
    def program(spec: GangSpec) -> None:
        world.path("/opt/ml/model/x").mkdir()
        world.path("/opt/ml/model/x/w").write_text("w")
        world.path("/opt/ml/model/x/w").chmod(0)
        world.path("/opt/ml/model/x").chmod(0)
        world.path("/opt/ml/checkpoints/x").mkdir()
        world.path("/opt/ml/checkpoints/x/y").write_text("")
        world.path("/opt/ml/checkpoints/x").chmod(0)

    world.engine.program = program
    await world.create()
    await world.until(S.TRAINING)
    world.engine.end()
    await world.until(S.COMPLETED)
    assert world.tar("out/job/output/model.tar.gz") == {"x": None, "x/w": b"w"}
    assert not any(world.config.home.instances.iterdir())


def test_a_traceback_whose_lines_came_in_parts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"1 {TRACEBACK}\n2   File\n3+ ValueError: bad\n4&+  day\n5& !\n")
    assert traceback_text(log) == "ValueError: bad\n day\n!"
