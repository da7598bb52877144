"""Warm pools: what one job leaves to the next, when that ends, and servers that die meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from training_world import ACCOUNT, REGION, Killed, World

from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.records.store import Conflict
from cloche.services.sagemaker.training.record import TRAINING_JOB, WARM_POOL
from cloche.services.sagemaker.training.status import SecondaryStatus as S
from cloche.services.sagemaker.training.update_operation import update_training_job
from cloche.services.sagemaker.training.warm_pools import decide as warm_pools
from cloche.services.sagemaker.training.warm_pools import loop as warm_pool
from cloche.services.sagemaker.training.warm_pools.loop import WarmPools

CACHE = "/opt/ml/sagemaker/warmpoolcache"
INSTANCE = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
DAY_S = 86_400


class Pools(World):
    """A world in which the loop of warm pools turns too."""

    async def step(self, *, restart: bool = False) -> None:
        """Let both loops make a step for each of their resources."""
        await super().step(restart=restart)
        loop = WarmPools(self.sagemaker)
        for resource in loop.load():
            await loop.step(resource)

    async def start(self, name: str, keep_s: int = 600, **changes: Any) -> None:
        """Create a job and run it until it trains."""
        kept = {"KeepAlivePeriodInSeconds": keep_s} if keep_s else {}
        resources = INSTANCE | kept | changes.pop("ResourceConfig", {})
        await self.create(name, ResourceConfig=resources, **changes)
        await self.until(S.TRAINING, name)

    async def run(self, name: str, keep_s: int = 600, **changes: Any) -> None:
        """Run a job to its good end."""
        await self.start(name, keep_s, **changes)
        self.engine.end()
        await self.until(S.COMPLETED, name)

    def pool(self, name: str) -> Any:
        """Return a job's WarmPoolStatus."""
        return warm_pools.described(self.job(name))

    @property
    def folders(self) -> list[str]:
        """Return what is kept on the disk."""
        kept = self.config.home.warm_pools
        return sorted(each.name for each in kept.iterdir()) if kept.exists() else []

    async def keep(self, name: str, seconds: int) -> None:
        """Call UpdateTrainingJob."""
        call = Call(
            operation="UpdateTrainingJob",
            account=ACCOUNT,
            region=REGION,
            actor=cast(Any, None),
            now=self.clock.now(),
            request_id="",
            service=self.sagemaker,
            store=self.store,
            http=cast(Any, None),
        )
        config = {"KeepAlivePeriodInSeconds": seconds}
        await update_training_job(call, TrainingJobName=name, ResourceConfig=config)  # type: ignore[misc]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Pools]:
    made = Pools(tmp_path / "home")
    await made.bucket()
    yield made
    made.close()


async def test_the_next_job_finds_what_the_first_left(world: Pools) -> None:
    await world.start("first")
    assert world.pool("first") == {"Status": "InUse"}
    process = world.engine.specs[world.engine.launched[-1]].processes[0]
    assert process.env["SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"] == CACHE
    assert [m.mode for m in process.mounts if m.target == CACHE] == ["rw"]
    assert list(world.path(CACHE).iterdir()) == []
    (world.path(CACHE) / "pip").write_text("wheels")
    world.engine.end()
    ended = await world.until(S.COMPLETED, "first")
    assert world.pool("first") == {"Status": "Available"}
    assert world.engine.states == {}, "a pool that waits holds nothing of the machine"
    world.clock.advance(100)
    await world.start("second", keep_s=60)
    assert (world.path(CACHE) / "pip").read_text() == "wheels"
    assert world.pool("second") == {"Status": "InUse"}
    first = world.pool("first")
    assert 100 <= first.pop("ResourceRetainedBillableTimeInSeconds") <= 105
    assert first == {"Status": "Reused", "ReusedByJob": "second"}
    assert world.job("first").resource.version == ended.resource.version + 1
    world.engine.end()
    await world.until(S.COMPLETED, "second")
    world.clock.advance(50)
    await world.step()
    assert world.pool("second") == {"Status": "Available"}, "its own 60 seconds"
    world.clock.advance(50)
    await world.step()
    await world.step()
    assert world.pool("second") == {
        "Status": "Terminated",
        "ResourceRetainedBillableTimeInSeconds": 60,
    }
    assert world.folders == [] and world.store.each(WARM_POOL) == []
    await world.start("third")
    assert list(world.path(CACHE).iterdir()) == [], "a cold start begins with nothing"


async def test_a_job_without_a_period_has_no_pool(world: Pools) -> None:
    await world.start("job", keep_s=0)
    process = world.engine.specs[world.engine.launched[-1]].processes[0]
    assert world.pool("job") is None
    assert not [n for n in process.env if "WARMPOOL" in n]
    assert CACHE not in [m.target for m in process.mounts]
    assert world.folders == []


async def test_a_job_without_a_period_ends_the_pool_that_it_takes(world: Pools) -> None:
    await world.run("first")
    await world.start("second", keep_s=0)
    assert world.pool("second") == {"Status": "InUse"}
    assert world.pool("first")["ReusedByJob"] == "second"
    world.engine.end()
    await world.until(S.COMPLETED, "second")
    await world.step()
    assert world.pool("second") == {
        "Status": "Terminated",
        "ResourceRetainedBillableTimeInSeconds": 0,
    }
    assert world.folders == []


OTHER_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.0-cpu-py310"
GROUP = {"InstanceGroupName": "g", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"EnableInterContainerTrafficEncryption": False}, True),
        ({"ResourceConfig": {"KeepAlivePeriodInSeconds": 5}}, True),
        (
            {"AlgorithmSpecification": {"TrainingImage": OTHER_IMAGE, "TrainingInputMode": "File"}},
            True,
        ),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/other"}, False),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large"}}, False),
        ({"ResourceConfig": {"InstanceCount": 2}}, False),
        ({"ResourceConfig": {"VolumeSizeInGB": 31}}, False),
        ({"ResourceConfig": {"VolumeKmsKeyId": "k"}}, False),
        ({"VpcConfig": {"Subnets": ["s"], "SecurityGroupIds": ["g"]}}, False),
        ({"EnableNetworkIsolation": True}, False),
        ({"EnableInterContainerTrafficEncryption": True}, False),
        ({"EnableManagedSpotTraining": True}, False),
        ({"ResourceConfig": {"InstanceGroups": [GROUP]}}, False),
    ],
    ids=str,
)
async def test_which_job_matches(world: Pools, changes: dict[str, Any], same: bool) -> None:
    await world.run("first")
    resources = INSTANCE | changes.get("ResourceConfig", {})
    await world.create("second", **(changes | {"ResourceConfig": resources}))
    await world.until(S.DOWNLOADING, "second")
    assert world.pool("first")["Status"] == ("Reused" if same else "Available")


async def test_a_trial_of_a_tuning_job_takes_no_pool(world: Pools) -> None:
    await world.run("first")
    await world.create("trial", ResourceConfig=INSTANCE)
    resource = world.job("trial").resource
    await world.store.update(resource, desired={**resource.desired, "TuningJobArn": "arn:t"})
    await world.until(S.TRAINING, "trial")
    assert world.pool("first") == {"Status": "Available"}


async def test_of_several_pools_the_last_one_is_taken(world: Pools) -> None:
    await world.start("first")
    await world.start("second")
    world.engine.end()
    await world.until(S.COMPLETED, "second")
    assert len(world.folders) == 2
    world.clock.advance(5)
    await world.run("third")
    taken = [name for name in ("first", "second") if world.pool(name)["Status"] == "Reused"]
    assert len(taken) == 1 and world.pool(taken[0])["ReusedByJob"] == "third"
    await world.run("fourth")
    assert world.pool("third")["ReusedByJob"] == "fourth"


async def test_each_host_has_a_cache_of_its_own(world: Pools) -> None:
    resources = {"InstanceCount": 2}
    await world.start("first", ResourceConfig=resources)
    for host in ("algo-1", "algo-2"):
        (world.path(CACHE, host) / "name").write_text(host)
        world.engine.end(host=host)
    await world.until(S.COMPLETED, "first")
    await world.start("second", ResourceConfig=resources)
    for host in ("algo-1", "algo-2"):
        assert (world.path(CACHE, host) / "name").read_text() == host


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("completed", "Available"),
        ("script", "Available"),
        ("stopped", "Available"),
        ("too long", "Available"),
        ("input", "Available"),
        ("lost", "Terminated"),
        ("broken", "Terminated"),
    ],
)
async def test_which_endings_leave_a_pool(world: Pools, ending: str, status: str) -> None:
    if ending == "input":
        await world.create("job", OutputDataConfig={"S3OutputPath": "s3://nowhere/out"})
        resource = world.job().resource
        request = {**resource.desired["Request"]}
        request["ResourceConfig"] = INSTANCE | {"KeepAlivePeriodInSeconds": 60}
        await world.store.update(resource, desired={**resource.desired, "Request": request})
    elif ending == "broken":
        world.engine.broken = "no namespaces"
        await world.create(ResourceConfig=INSTANCE | {"KeepAlivePeriodInSeconds": 60})
    else:
        await world.start("job")
    match ending:
        case "completed":
            world.engine.end()
        case "script":
            world.engine.end(1)
        case "too long":
            world.engine.end(-15, "MaxRuntimeExceeded")
        case "stopped":
            world.engine.end(-15, "Stopped")
        case "lost":
            world.engine.lose()
    for _ in range(5):
        await world.step()
    assert world.job().progress.ended_ms is not None
    assert world.pool("job")["Status"] == status
    assert len(world.folders) == (status == "Available")


async def test_an_attempt_that_starts_over_keeps_its_pool(world: Pools) -> None:
    await world.start("job", RetryStrategy={"MaximumRetryAttempts": 1})
    (world.path(CACHE) / "a").write_text("x")
    world.engine.lose()
    await world.until(S.RESTARTING)
    await world.until(S.TRAINING)
    assert (world.path(CACHE) / "a").exists() and len(world.folders) == 1
    assert world.pool("job") == {"Status": "InUse"}


async def test_two_jobs_never_take_the_same_pool(world: Pools) -> None:
    await world.run("first")
    for name in ("one", "two"):
        await world.create(name, ResourceConfig=INSTANCE | {"KeepAlivePeriodInSeconds": 9})
    write, both = world.store.update, asyncio.Barrier(2)

    async def update(*args: Any, **kwargs: Any) -> Any:
        await both.wait()  # each has seen the pool before the other writes
        return await write(*args, **kwargs)

    world.store.update = update  # type: ignore[method-assign]
    steps = [world.loop.step(resource) for resource in world.loop.load()]
    results = await asyncio.gather(*steps, return_exceptions=True)
    world.store.update = write  # type: ignore[method-assign]
    assert [type(result) for result in results if result] == [Conflict]
    await world.until(S.TRAINING, "one")
    await world.until(S.TRAINING, "two")
    names = {(pool := world.job(n).progress.pool) and pool.name for n in ("one", "two")}
    assert len(names) == 2 == len(world.folders)
    assert world.pool("first")["ReusedByJob"] in ("one", "two")


async def test_a_longer_and_a_shorter_period(world: Pools) -> None:
    await world.run("job", keep_s=60)
    await world.keep("job", 3600)
    world.clock.advance(3000)
    await world.step()
    assert world.pool("job") == {"Status": "Available"}
    assert world.job().request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 3600
    await world.keep("job", 0)
    await world.create("next", ResourceConfig=INSTANCE)
    await world.until(S.DOWNLOADING, "next")
    assert world.pool("next") is None, "what was ended is not taken any more"
    await world.step()
    pool = world.pool("job")
    assert pool["Status"] == "Terminated" and world.folders == []
    assert 3000 <= pool["ResourceRetainedBillableTimeInSeconds"] <= 3010


async def test_a_pool_that_is_over_is_not_revived_before_the_loop_looks(world: Pools) -> None:
    await world.run("job", keep_s=60)
    await world.keep("job", 0)
    with pytest.raises(AwsError, match="a warm pool in status Terminated"):
        await world.keep("job", 60)


async def test_the_time_goes_on_while_the_server_is_down(world: Pools) -> None:
    await world.run("job", keep_s=60)
    world.clock.advance(7 * DAY_S)
    await world.create("next", ResourceConfig=INSTANCE)
    (resource,) = world.loop.load()
    await world.loop.step(resource)
    assert world.pool("next") is None, "although the loop of pools did not look yet"
    await world.step(restart=True)
    await world.step()
    assert world.pool("job")["ResourceRetainedBillableTimeInSeconds"] == 60
    assert world.folders == []


async def test_after_28_days_a_pool_is_not_handed_on(world: Pools) -> None:
    await world.start("first", keep_s=600)
    world.clock.advance(28 * DAY_S - 60)
    world.engine.end()
    await world.until(S.COMPLETED, "first")
    assert world.pool("first") == {"Status": "Available"}
    assert warm_pools.until_ms(world.job("first")) < world.clock.now().timestamp() * 1000 + 60_000
    await world.start("second")
    world.clock.advance(60)
    world.engine.end()
    await world.until(S.COMPLETED, "second")
    assert world.pool("second")["Status"] == "Terminated"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(12))
async def test_killed_around_every_write(world: Pools, number: int, when: str) -> None:
    """The server dies just before, or just after, its n-th write in the life of a pool."""
    writes = world.die_at(number, when)

    async def turn(until: Any) -> None:
        for _ in range(12):
            if until():
                return
            with suppress(Killed):
                await world.step(restart=True)
            one_each()
        raise AssertionError("it does not get there")

    def one_each() -> None:
        """Hold what must be true at any time: a folder has a row, a row has one job."""
        rows = {row.name: row for row in world.store.each(WARM_POOL)}
        assert set(world.folders) <= set(rows)
        jobs = [world.job(r.name) for r in world.store.each(TRAINING_JOB)]
        for name, row in rows.items():
            having = [
                job.resource.arn
                for job in jobs
                if (pool := job.progress.pool) and (pool.name, pool.status) == (name, row.status)
            ]
            assert row.status == "Terminated" or having == [row.document["TrainingJobArn"]]

    async def life(name: str) -> None:
        await world.create(name, ResourceConfig=INSTANCE | {"KeepAlivePeriodInSeconds": 60})
        await turn(lambda: world.job(name).secondary is S.TRAINING)
        with (world.path(CACHE) / "names").open("a") as file:
            file.write(name)
        world.engine.end()
        await turn(lambda: world.job(name).secondary is S.COMPLETED)

    await life("a")
    await life("b")
    assert (world.pool("a")["Status"], world.pool("a")["ReusedByJob"]) == ("Reused", "b")
    (folder,) = world.folders
    assert (world.config.home.warm_pools / folder / "algo-1/names").read_text() == "ab"
    world.clock.time += timedelta(seconds=60)
    await turn(lambda: not world.store.each(WARM_POOL))
    assert world.pool("b")["Status"] == "Terminated" and world.folders == []
    assert writes == [12 + (when == "before")], "five of each job, the end, the row's going"


async def test_a_folder_that_could_not_be_removed_is_tried_again(
    world: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.run("job", keep_s=60)
    world.clock.advance(60)
    await world.step()

    def remove(folder: Path) -> None:
        raise OSError("busy")

    monkeypatch.setattr(warm_pool, "remove_tree", remove)
    with pytest.raises(OSError, match="busy"):
        await world.step()
    monkeypatch.undo()
    assert len(world.folders) == 1 == len(world.store.each(WARM_POOL))
    await world.step()
    assert world.folders == [] and world.store.each(WARM_POOL) == []
