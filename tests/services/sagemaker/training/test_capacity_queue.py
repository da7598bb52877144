"""The line of jobs that wait for capacity."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from training_world import World

from cloche.records.store import Resource
from cloche.services.sagemaker.training.capacity_queue import NEAR, Line
from cloche.services.sagemaker.training.record import SecondaryStatus

S = SecondaryStatus
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
    line = Line([woken.append])
    assert [line.enter(job(number)) for number in (5, 3, 4, 3)] == [0, 0, 1, 0]
    assert not line.waits(job(3)) and line.waits(job(4)) and not line.waits(job(1))
    line.leave(job(3))
    line.leave(job(3))
    assert not line.waits(job(4)) and line.waits(job(6))


def test_only_those_near_the_front_are_woken(woken: list[str]) -> None:
    line = Line([woken.append])
    line.fill(job(number) for number in range(1000))
    line.leave(job(0))
    assert woken == [f"a{number}" for number in range(1, NEAR + 2)]
    woken.clear()
    line.enter(job(2000))
    line.leave(job(500))
    line.freed()
    assert woken == ["a1"]


def test_messages_name_who_goes_first_and_who_holds(woken: list[str]) -> None:
    line = Line([woken.append])
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
