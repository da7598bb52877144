"""What goes wrong around a training job is told in its status, and ends or passes; no metric is
lost to others who write the job's record meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from training_world import METRIC, World, algorithm, channel, stop, trainer

from cloche.engine import DiskFull, GangSpec
from cloche.records.store import Conflict, StorageFull
from cloche.services.sagemaker.training import hosts, inputs, loop
from cloche.services.sagemaker.training.status import SecondaryStatus as S

FULL = "Waiting for disk space: the disk that holds Cloche's home folder is full"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket(in__a="A" * 1000, in__b__c="C")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("in/a\0b", r"The key in/a\x00b is not a path below a folder"),
        ("in/" + "x" * 300, "in/" + "x" * 253 + "…: File name too long"),
        ("in/../up", "The key in/../up is not a path below a folder"),
        ("in/a/below-a-file", "a/below-a-file would be a file and a folder at once"),
    ],
)
@pytest.mark.parametrize("restored", [False, True])
async def test_a_key_that_is_no_path_ends_the_job(
    world: World, key: str, reason: str, restored: bool
) -> None:
    await world.s3.put_bytes("bucket", key, b"x")
    if restored:
        await world.create(CheckpointConfig={"S3Uri": "s3://bucket/in/"})
        reason = reason.replace("a/below-a-file would be a file and a folder at once", "in/a/below")
    else:
        await world.create(InputDataConfig=[channel("training", "s3://bucket/in/")])
    failure = (await world.until(S.FAILED)).progress.failure
    assert failure is not None and failure.startswith("ClientError: Data download failed:")
    assert (restored and reason in failure) or failure.endswith(reason)


async def test_a_key_as_deep_as_can_be_is_presented(world: World) -> None:
    key = "in/" + "a/" * 500 + "deep"
    await world.s3.put_bytes("bucket", key.replace("a/", "d/", 1), b"x")
    await world.create(InputDataConfig=[channel("training", "s3://bucket/in/")])
    await world.until(S.TRAINING)


async def test_what_nobody_thought_of_ends_the_job_after_three_tries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def prepare(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("a\nbug")

    monkeypatch.setattr(hosts, "prepare", prepare)
    await world.create()
    await world.until(S.DOWNLOADING)
    await world.step()
    said = world.job().progress.transitions[-1].message
    assert said == "Retrying after an internal error: RuntimeError: a bug"
    job = await world.until(S.FAILED)
    assert tries == 3
    assert job.progress.failure == (
        "InternalServerError: The job could not be prepared: RuntimeError: a bug"
    )


@pytest.mark.parametrize("where", ["prepare", "restore", "launch"])
async def test_a_full_disk_is_waited_for(
    world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise {
            "prepare": OSError(errno.ENOSPC, "No space left on device"),
            "restore": StorageFull(),
            "launch": DiskFull("gang: No space left on device"),
        }[where]

    trainer(world)
    await world.create()
    with monkeypatch.context() as patched:
        target = {"prepare": hosts, "restore": loop.checkpoints, "launch": world.engine}[where]
        patched.setattr(target, where, full)
        for _ in range(8):
            await world.step()
        job = world.job()
        assert (job.secondary, job.progress.transitions[-1].message) == (S.DOWNLOADING, FULL)
    await world.until(S.TRAINING)
    world.engine.end()
    await world.until(S.COMPLETED)


async def test_what_is_tried_again_is_told_and_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(world)
    await world.create()
    await world.until(S.TRAINING)

    async def sync(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    message = world.job().progress.transitions[-1].message
    with monkeypatch.context() as patched:
        patched.setattr(world.loop.checkpoints, "sync", sync)
        with pytest.raises(OSError):
            await world.step()
    assert world.job().progress.transitions[-1].message == (
        "Retrying after an internal error: OSError: [Errno 5] Input/output error"
    )
    await world.step()
    assert world.job().progress.transitions[-1].message == message


async def touch(world: World) -> None:
    """Write the record as AddTags does."""
    resource = world.job().resource
    await world.store.update(resource, desired={**resource.desired, "Tags": {"a": "b"}})


@pytest.mark.parametrize("other", [touch, stop])
@pytest.mark.parametrize("times", [1, 3])
async def test_no_metric_is_lost_to_others_who_write(
    world: World, other: Any, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes the record after the log was read, and before the step writes."""

    def program(spec: GangSpec) -> None:
        world.log("Loss: 0.5\nLoss: 0.25")

    world.engine.program = program
    await world.create(
        AlgorithmSpecification=algorithm(MetricDefinitions=METRIC),
        HyperParameters={"_tuning_objective_metric": "loss"},
    )
    await world.until(S.TRAINING)
    real, left = world.loop.write, times

    async def write(*args: Any, **kwargs: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            await other(world) if other is touch or left == times - 1 else await touch(world)
        await real(*args, **kwargs)

    monkeypatch.setattr(world.loop, "write", write)
    for _ in range(times):
        with pytest.raises(Conflict):
            for _ in range(10):
                await world.step()
    world.engine.end()
    job = await world.until(S.STOPPED if other is stop else S.COMPLETED)
    assert job.progress.metrics["loss"].value == 0.25 and job.progress.curve == (0.5, 0.25)
    assert [d.value for d in world.cloudwatch.data if d.name == "loss"] == [0.5, 0.25]


async def damaged(world: World, key: str, *, cut: bool) -> tuple[str, str]:
    """Flip a bit of an object's content, or cut it; return its MD5 then and before."""
    stored = world.s3.find("bucket", key)
    assert stored is not None
    stored.path.chmod(0o644)
    with stored.path.open("r+b") as file:
        if cut:
            file.truncate(stored.size - 1)
        else:
            file.write(b"B")
    return hashlib.md5(stored.path.read_bytes()).hexdigest(), stored.etag


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("ends", [False, True])
async def test_a_job_with_a_flipped_bit_in_its_input_fails(
    world: World, ends: bool, little: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, wanted = await damaged(world, "in/a", cut=False)
    trainer(world)
    if not little:
        monkeypatch.setattr(inputs, "LITTLE", 0)
    await world.create(InputDataConfig=[channel("training", "s3://bucket/in/")])
    await world.until(S.FAILED if little else S.TRAINING)
    if ends:
        world.engine.end()
    for _ in range(200):
        if (job := world.job()).secondary is S.FAILED:
            break
        await world.step()
        if (look := world.loop.kept(job).damage) is not None and not look.done():
            await look
    assert job.progress.failure == (
        "ClientError: Data download failed:The content of s3://bucket/in/a is damaged: "
        f"its MD5 is {found} instead of {wanted}"
    )
    assert ends or world.engine.stopped or little
    assert little == (not world.engine.launched)


async def test_a_job_whose_input_was_cut_does_not_start(world: World) -> None:
    await damaged(world, "in/a", cut=True)
    await world.create(InputDataConfig=[channel("training", "s3://bucket/in/")])
    failure = (await world.until(S.FAILED)).progress.failure
    assert failure == (
        "ClientError: Data download failed:The content of s3://bucket/in/a is damaged: "
        "it has 999 bytes instead of 1,000"
    )
    assert not world.engine.launched


@pytest.mark.parametrize("cut", [False, True])
async def test_a_damaged_checkpoint_is_not_restored(world: World, cut: bool) -> None:
    await damaged(world, "in/a", cut=cut)
    await world.create(CheckpointConfig={"S3Uri": "s3://bucket/in/"})
    failure = (await world.until(S.FAILED)).progress.failure
    assert failure is not None and "The content of s3://bucket/in/a is damaged: it" in failure


@pytest.mark.parametrize("little", [True, False])
async def test_a_content_is_looked_at_once(
    world: World, little: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not little:
        monkeypatch.setattr(inputs, "FEW", 0)
    trainer(world)
    looked = list[str]()
    monkeypatch.setattr(inputs, "check", lambda one: looked.append(one.stored.key))
    for name in ("one", "two"):
        await world.create(name, InputDataConfig=[channel("training", "s3://bucket/in/")])
        await world.until(S.TRAINING, name)
        listed = hosts.ground_of(world.job(name), world.config).folder / inputs.NAME
        assert listed.exists() == (name == "one" and not little)
        assert await world.loop.look_at_input(world.job(name)) is None
        world.engine.end()
        await world.until(S.COMPLETED, name)
    assert looked == (["in/a", "in/b/c", "code/sourcedir.tar.gz"] if little else [])
