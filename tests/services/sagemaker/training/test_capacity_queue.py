"""The line of jobs that wait for capacity."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from training_world import World, channel, statuses

from cloche.records.store import Resource
from cloche.services.sagemaker.training import hosts, staging
from cloche.services.sagemaker.training.capacity_queue import NEAR, Line
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.status import SecondaryStatus
from cloche.services.sagemaker.training.submission import stop_training_job

S = SecondaryStatus
BEFORE = (S.STARTING, S.PENDING, S.DOWNLOADING)
START = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int) -> Resource:
    return Resource(
        account="1",
        region="r",
        kind="training-job",
        name=f"j{number}",
        arn=f"a{number}",
        created=START + timedelta(seconds=number),
        modified=START,
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.bucket(in__a="A")
    yield made
    made.close()


@pytest.fixture
def woken() -> list[str]:
    return []


def test_the_oldest_is_first_whenever_it_came(woken: list[str]) -> None:
    line = Line(woken.append)
    assert [line.enter(job(number)) for number in (5, 3, 4, 3)] == [0, 0, 1, 0]
    assert not line.waits(job(3)) and line.waits(job(4)) and not line.waits(job(1))
    line.leave(job(3))
    line.leave(job(3))
    assert not line.waits(job(4)) and line.waits(job(6))


def test_only_those_near_the_front_are_woken(woken: list[str]) -> None:
    line = Line(woken.append)
    line.fill(job(number) for number in range(1000))
    line.leave(job(0))
    assert woken == [f"a{number}" for number in range(1, NEAR + 2)]
    woken.clear()
    line.enter(job(2000))
    line.leave(job(500))
    line.freed()
    assert woken == ["a1"]


def test_messages_name_who_goes_first_and_who_holds(woken: list[str]) -> None:
    line = Line(woken.append)
    line.fill(job(number) for number in range(100))
    line.hold(["training job x", "endpoint y"])
    assert line.reason(1) == (
        "older training jobs are waiting: j0; held by training job x, endpoint y"
    )
    assert line.reason(5).startswith("older training jobs are waiting: j0, j1, j2 and 2 more;")
    assert line.reason(50) == "older training jobs are waiting"
    woken.clear()
    line.hold(["training job x", "endpoint y"])
    assert woken == []
    line.hold(["endpoint y"])
    assert woken == [f"a{number}" for number in range(1, NEAR + 1)]


async def test_a_new_server_knows_who_waits(world: World) -> None:
    world.engine.full = "taken"
    await world.create("older")
    await world.until(S.PENDING, "older")
    await world.create("younger")
    world.engine.full = None
    world.restart()
    resources = world.loop.load()
    await world.loop.step(next(r for r in resources if r.name == "younger"))
    await world.loop.step(world.job("younger").resource)
    assert world.job("younger").secondary is S.PENDING
    assert world.engine.launched == []


async def test_one_that_waits_behind_prepares_nothing_and_sleeps(world: World) -> None:
    world.engine.full = "taken"
    for name in ("one", "two"):
        await world.create(name)
        await world.until(S.PENDING, name)
    world.restart()
    world.loop.load()
    pause_s = await world.loop.step(world.job("two").resource)
    assert pause_s is not None and pause_s >= 10
    assert not world.loop.kept(world.job("two")).preparing.done


async def in_turn(world: World, names: Sequence[str], secondary: SecondaryStatus) -> None:
    """Have all jobs stepped side by side until these are there."""
    for _ in range(20):
        jobs = [one for one in world.loop.load() if world.job(one.name).secondary in BEFORE]
        await asyncio.gather(*(world.loop.step(one) for one in jobs))
        if all(world.job(name).secondary is secondary for name in names):
            return
    raise AssertionError([world.job(name).secondary for name in names])


async def test_many_at_once_start_in_order_and_those_that_wait_have_nothing_prepared(
    world: World,
) -> None:
    world.engine.most = 2
    names = [f"job-{number}" for number in range(12)]
    for name in names:
        await world.create(name, InputDataConfig=[channel("in", "s3://bucket/in/")])
    await in_turn(world, names[:2], S.TRAINING)
    told = [world.job(name).progress.transitions for name in names]
    for waiting in told[2:]:
        assert [each.status for each in waiting] == [S.STARTING, S.PENDING]
    assert told[2][-1].message == (
        "Waiting for capacity: needs more; held by training job job-0, training job job-1"
    )
    assert told[3][-1].message.startswith("Waiting for capacity: older training jobs are waiting: ")
    folders = sorted(folder.name[:5] for folder in world.config.home.instances.iterdir())
    assert folders == ["job-0", "job-1"]
    woken: list[str] = []
    world.loop.wakers.append(woken.append)
    world.engine.end()
    first = world.engine.launched[0]  # of two whose input is presented at the same time
    (whose,) = world.sagemaker.gangs.owners([first])
    assert whose in ("training job job-0", "training job job-1")
    world.sagemaker.gangs.ended(first)
    assert woken == [world.job(name).resource.arn for name in (whose.split()[-1], "job-2")]
    await in_turn(world, names[2:4], S.TRAINING)
    assert [statuses(world.job(name)) for name in names[2:4]] == [
        [S.STARTING, S.PENDING, S.DOWNLOADING, S.TRAINING]
    ] * 2
    launched = [name[:5] for name in world.engine.launched]
    # Two have their turns at a time: whose input is there first is launched first.
    assert (sorted(launched[:2]), sorted(launched[2:])) == (names[:2], names[2:4])
    assert {world.job(name).secondary for name in names[4:]} == {S.PENDING}


async def test_one_whose_input_takes_long_keeps_nobody_from_the_capacity(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.Event()
    prepare = hosts.prepare

    def slow(job: TrainingJob, *more: Any) -> None:
        if job.resource.name == "slow":
            assert here.wait(20)
        prepare(job, *more)

    monkeypatch.setattr(hosts, "prepare", slow)
    monkeypatch.setattr(staging, "SOON_S", 0.01)
    world.engine.most = 1
    for name in ("slow", "quick"):
        await world.create(name)
    await in_turn(world, ["quick"], S.TRAINING)
    assert world.job("slow").secondary is S.DOWNLOADING
    here.set()
    await in_turn(world, ["slow"], S.PENDING)
    told = world.job("slow").progress.transitions[-1].message
    assert told == "Waiting for capacity: needs more; held by training job quick"
    world.engine.end()
    await in_turn(world, ["slow"], S.TRAINING)


@pytest.mark.parametrize("how", ["stopped", "failing"])
async def test_one_that_does_not_use_its_turn_gives_it_back(world: World, how: str) -> None:
    world.engine.most = 1
    for name in ("first", "second"):
        await world.create(name)
    await world.loop.step(world.job("first").resource)  # it has its turn
    await world.loop.step(world.job("second").resource)
    assert world.job("second").secondary is S.PENDING and world.engine.launched == []
    assert world.job("first").secondary is S.DOWNLOADING
    woken: list[str] = []
    world.loop.wakers.append(woken.append)
    if how == "stopped":
        await stop_training_job(world.store, world.job("first").resource, world.clock.now())
    else:
        world.engine.broken = "no sandbox"
    await world.loop.step(world.job("first").resource)
    assert world.job("second").resource.arn in woken
    world.engine.broken = None
    await in_turn(world, ["second"], S.TRAINING)


async def test_max_wait_time_is_kept_while_it_sleeps(world: World) -> None:
    world.engine.full = "taken"
    await world.create("one")
    await world.until(S.PENDING, "one")
    stopping = {"MaxRuntimeInSeconds": 3, "MaxWaitTimeInSeconds": 6}
    await world.create("spot", StoppingCondition=stopping, EnableManagedSpotTraining=True)
    await world.until(S.PENDING, "spot")
    pause_s = await world.loop.step(world.job("spot").resource)
    assert pause_s is not None and pause_s <= 6


async def test_holders_have_the_names_that_users_gave(world: World) -> None:
    await world.create("mine")
    await world.until(S.TRAINING, "mine")
    gang = world.engine.launched[0]
    assert world.sagemaker.gangs.owners([gang, gang, "layer-x", "other"]) == [
        "training job mine",
        "the installation of a requirements.txt",
        "a process that is about to be removed",
    ]
