"""Pings: how often, and what the end of their connection tells."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fake_workers import PING, Fake, Make, making, until

from cloche.replicas.health import Pace, Pings

NEVER = 3600.0


@pytest.fixture
async def fakes() -> AsyncIterator[Make]:
    async with making() as make:
        yield make


async def test_worker_that_is_well_is_left_alone_until_its_end_is_told(fakes: Make) -> None:
    one, told = await fakes("one"), asyncio.Event()
    pings = Pings(PING, Pace(timeout_s=5, pause_s=0, calm_pause_s=NEVER))
    for _ in range(3):
        await pings.ping("one", one.address, told.set, ready=True)
    heard = pings.heard["one"]
    assert (len(one.seen), heard.healthy, heard.pinger.connected) == (1, True, True)
    assert not told.is_set()
    await one.die()
    await asyncio.wait_for(told.wait(), 10)
    assert not heard.pinger.connected
    before = heard.answered
    await pings.ping("one", one.address, told.set, ready=True)  # nobody would tell: not so calm
    assert (heard.healthy, heard.answered) == (False, before)


async def test_worker_that_starts_is_asked_at_every_look(fakes: Make) -> None:
    one = await fakes("one")
    pings = Pings(PING, Pace(timeout_s=5, pause_s=NEVER, calm_pause_s=NEVER))
    for _ in range(3):
        await pings.ping("one", one.address, lambda: None, ready=False)
    await pings.ping("one", one.address, lambda: None, ready=True)
    assert (len(one.seen), one.connections) == (3, 1)


async def test_worker_that_says_nothing_is_not_well(fakes: Make) -> None:
    async def silent(fake: Fake, body: bytes) -> bytes:
        await asyncio.Event().wait()
        return body

    one = await fakes("one", silent)
    pings = Pings(PING, Pace(timeout_s=0.05, pause_s=NEVER, calm_pause_s=0))
    await pings.ping("one", one.address, lambda: None, ready=True)
    heard = pings.heard["one"]
    assert (heard.healthy, heard.pinger.connected) == (False, False)
    await pings.ping("one", one.address, lambda: None, ready=True)
    assert len(one.seen) == 1  # the pause is that of one that does not answer
    pings.forget("one")
    assert pings.heard == {}


async def test_worker_that_is_forgotten_is_left(fakes: Make) -> None:
    one, told = await fakes("one"), asyncio.Event()
    pings = Pings(PING, Pace(timeout_s=5, pause_s=0, calm_pause_s=NEVER))
    await pings.ping("one", one.address, told.set, ready=True)
    [writer] = one.writers
    pings.forget("one")
    await until(writer.is_closing)
    assert not told.is_set()  # it was not the worker's doing
