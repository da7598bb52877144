"""The reconciler without a store: when it steps, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from cloche.reconciler import Loop, Reconciler
from cloche.records.store import Conflict, Resource, Store

AT_ONCE_S = 5.0  # it takes no time; a server under load may


@dataclass
class Records:
    """Resources in memory, and whoever wants to know of changes."""

    resources: dict[str, Resource] = field(default_factory=dict)
    listeners: list[Callable[[str, str], None]] = field(default_factory=list)
    found: int = 0

    def on_written(self, listener: Callable[[str, str], None]) -> None:
        self.listeners.append(listener)

    def find(self, arn: str) -> Resource | None:
        self.found += 1
        return self.resources.get(arn)

    def put(self, name: str) -> None:
        before = self.resources.get(name)
        if before is None:
            self.resources[name] = Resource(
                arn=name,
                kind="thing",
                account="123456789012",
                region="us-east-1",
                name=name,
                status="Wanted",
                created=datetime(2026, 1, 1, tzinfo=UTC),
                modified=datetime(2026, 1, 1, tzinfo=UTC),
                version=1,
                wish={},
                document={},
            )
        else:
            self.resources[name] = replace(before, version=before.version + 1)
        for listener in self.listeners:
            listener("thing", name)


@dataclass
class Recorded:
    """A loop that writes down its steps; `outcomes` are what they do, in turn, then None."""

    records: Records
    outcomes: list[Any] = field(default_factory=list)
    steps: asyncio.Queue[tuple[str, int]] = field(default_factory=asyncio.Queue)
    kind: str = "thing"
    woken: list[Callable[[str], None]] = field(default_factory=list)
    loads: int = 0

    def load(self) -> Sequence[Resource]:
        self.loads += 1
        return list(self.records.resources.values())

    def unsettled(self, resource: Resource) -> bool:
        return resource.status == "Wanted"

    async def step(self, resource: Resource) -> float | None:
        self.steps.put_nowait((resource.name, resource.version))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return cast("float | None", outcome)

    async def next(self) -> tuple[str, int]:
        async with asyncio.timeout(AT_ONCE_S):
            return await self.steps.get()


def made(records: Records, loop: Loop) -> Reconciler:
    return Reconciler(cast(Store, records), [loop])


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_when_it_is_cancelled_as_something_changes(turns: int) -> None:
    """However many turns of the event loop lie between the two."""
    records = Records()
    loop = Recorded(records, outcomes=[1000.0, 1000.0])  # it waits, but not for ever
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    await loop.next()
    for _ in range(20):
        await asyncio.sleep(0)
    records.put("a")
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    ended, _ = await asyncio.wait({running}, timeout=AT_ONCE_S)
    assert ended and running.cancelled()


async def test_a_step_at_every_change_and_when_one_is_due() -> None:
    records = Records()
    loop = Recorded(records, outcomes=[0.0, None])
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    assert [await loop.next() for _ in range(2)] == [("a", 1), ("a", 1)]
    records.put("a")
    assert await loop.next() == ("a", 2)
    records.put("b")
    assert await loop.next() == ("b", 1)
    assert loop.steps.empty()
    running.cancel()


async def test_a_step_that_met_another_writer_is_made_again_at_once() -> None:
    records = Records()
    loop = Recorded(records, outcomes=[Conflict("a")])
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    assert [await loop.next() for _ in range(2)] == [("a", 1), ("a", 1)]
    running.cancel()


async def test_a_step_that_failed_is_told_and_made_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloche.reconciler.FIRST_RETRY_S", 0.001)
    records = Records()
    loop = Recorded(records, outcomes=[OSError("no disk"), OSError("no disk")])
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    assert [await loop.next() for _ in range(3)] == [("a", 1)] * 3
    running.cancel()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["a: step failed, again in 0.0 s"] * 2


async def test_what_a_change_costs_does_not_grow_with_the_number_of_resources() -> None:
    records = Records()
    loop = Recorded(records)
    for number in range(500):
        records.put(f"r{number}")
    reconciler = made(records, loop)
    running = asyncio.create_task(reconciler.run())

    async def settled(steps: int) -> None:
        async with asyncio.timeout(AT_ONCE_S):
            while loop.steps.qsize() < steps or any(  # noqa: ASYNC110
                w.task for w in reconciler.watched.values()
            ):
                await asyncio.sleep(0)

    await settled(500)
    before = records.found
    records.put("r7")
    await settled(501)
    assert loop.loads == 1 and records.found - before == 2  # as it changed, as its step ended
    running.cancel()


async def test_a_settled_or_deleted_resource_is_let_go() -> None:
    records = Records()
    loop = Recorded(records, outcomes=[0.0, 0.0])
    reconciler = made(records, loop)
    running = asyncio.create_task(reconciler.run())
    for name in ("a", "b"):
        records.put(name)
        await loop.next()
    records.resources["a"] = replace(records.resources["a"], status="Settled")
    records.put("a")
    del records.resources["b"]
    records.listeners[0]("thing", "b")
    async with asyncio.timeout(AT_ONCE_S):
        while reconciler.watched:  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()


async def test_a_loop_wakes_a_resource_that_did_not_change() -> None:
    records = Records()
    loop = Recorded(records)
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    assert await loop.next() == ("a", 1)
    loop.woken[0]("a")
    assert await loop.next() == ("a", 1)
    running.cancel()


async def test_what_no_event_told_of_is_found_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.reconciler.LIST_S", 0.01)
    records = Records()
    loop = Recorded(records)
    running = asyncio.create_task(made(records, loop).run())
    records.put("a")
    await loop.next()
    records.listeners.clear()
    records.put("b")
    assert await loop.next() == ("b", 1)
    running.cancel()
