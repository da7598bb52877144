"""The reconciler without a database: when it steps, what it makes of failures, that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from cloche.loop import Loop
from cloche.reconciler import Driver, Reconciler
from cloche.records.store import AUTHOR, Changed, Conflict, Resource, Store

AT_ONCE_S = 5.0  # it takes no time; a server under load may
KIND, OTHER = "thing", "part"


@dataclass
class Records:
    """Resources in memory, and whoever wants to know of changes."""

    resources: dict[str, Resource] = field(default_factory=dict)
    listeners: list[Callable[[Changed], None]] = field(default_factory=list)
    found: int = 0
    broken: Exception | None = None  # what a read raises

    def on_change(self, listener: Callable[[Changed], None]) -> None:
        self.listeners.append(listener)

    def find(self, arn: str) -> Resource | None:
        self.found += 1
        if self.broken is not None:
            raise self.broken
        return self.resources.get(arn)

    def put(self, name: str, *, kind: str = KIND, status: str = "Wanted") -> None:
        before = self.resources.get(name)
        self.resources[name] = Resource(
            arn=name,
            kind=kind,
            account="123456789012",
            region="us-east-1",
            name=name,
            status=status,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            modified=datetime(2026, 1, 1, tzinfo=UTC),
            version=1 if before is None else before.version + 1,
        )
        self.tell(before, self.resources[name])

    def delete(self, name: str) -> None:
        self.tell(self.resources.pop(name), None)

    def tell(self, old: Resource | None, new: Resource | None) -> None:
        for listener in self.listeners:
            listener(Changed(old, new, AUTHOR.get()))


@dataclass(kw_only=True)
class Recorded(Loop):
    """A loop that writes down its steps; `outcomes` are what they do, in turn, then None."""

    records: Records
    outcomes: list[Any] = field(default_factory=list)
    steps: asyncio.Queue[tuple[str, int]] = field(default_factory=asyncio.Queue)
    kind: str = KIND  # type: ignore[misc]
    watches: Mapping[str, Callable[[Changed], str | None]] = field(  # type: ignore[misc]
        default_factory=dict
    )
    watch_delay_s: float = 0.0  # type: ignore[misc]
    loads: int = 0
    at_once: int = 0  # steps that run
    broken: list[BaseException] = field(default_factory=list)  # what `load` raises, in turn

    def load(self) -> Sequence[Resource]:
        self.loads += 1
        if self.broken:
            raise self.broken.pop(0)
        return [one for one in self.records.resources.values() if one.kind == self.kind]

    def unsettled(self, resource: Resource) -> bool:
        return resource.status == "Wanted"

    async def step(self, resource: Resource) -> float | None:
        self.steps.put_nowait((resource.name, resource.version))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        self.at_once += 1
        try:
            if callable(outcome):
                outcome = await outcome()
        finally:
            self.at_once -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return cast("float | None", outcome)

    async def next(self) -> tuple[str, int]:
        async with asyncio.timeout(AT_ONCE_S):
            return await self.steps.get()


@dataclass
class Place:
    """Records, a loop, and what drives it."""

    records: Records
    loop: Recorded
    reconciler: Reconciler

    @property
    def driver(self) -> Driver:
        return self.reconciler.drivers[self.loop.kind]

    async def quiet(self) -> None:
        """Wait until nothing is to be done at the moment."""
        async with asyncio.timeout(AT_ONCE_S):
            while self.driver.queue.ready or self.driver.running:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    *outcomes: Any, others: Sequence[Recorded] = (), **more: Any
) -> AsyncIterator[Place]:
    records = others[0].records if others else Records()
    loop = Recorded(records=records, outcomes=list(outcomes), **more)
    reconciler = Reconciler(cast(Store, records), [loop, *others])
    task = asyncio.create_task(reconciler.run())
    place = Place(records, loop, reconciler)
    async with asyncio.timeout(AT_ONCE_S):
        while not loop.loads or not records.listeners:  # noqa: ASYNC110
            await asyncio.sleep(0)
    try:
        yield place
    finally:
        task.cancel()
        ended, _ = await asyncio.wait({task}, timeout=AT_ONCE_S)
        assert ended and task.cancelled()
        assert not place.driver.running


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.work_queue.FIRST_RETRY_S", 0.001)


# ---------------------------------------------------------------------- when it steps


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_when_it_is_cancelled_as_something_changes(turns: int) -> None:
    """However many turns of the event loop lie between the two."""
    async with running(1000.0, 1000.0) as place:  # it waits, but not for ever
        place.records.put("a")
        await place.loop.next()
        await place.quiet()
        place.records.put("a")
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_a_step_at_every_change_and_when_one_is_due() -> None:
    async with running(0.0, None) as place:
        place.records.put("a")
        assert [await place.loop.next() for _ in range(2)] == [("a", 1), ("a", 1)]
        place.records.put("a")
        assert await place.loop.next() == ("a", 2)
        place.records.put("b")
        assert await place.loop.next() == ("b", 1)
        await place.quiet()
        assert place.loop.steps.empty()


async def test_what_is_there_at_the_start_is_stepped() -> None:
    before = Recorded(records=Records(), kind=OTHER)
    before.records.put("a")
    async with running(others=[before]) as place:
        assert await place.loop.next() == ("a", 1)


async def test_what_changes_during_a_step_is_stepped_once_more_and_never_beside_it() -> None:
    at, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        at.set()
        await go.wait()

    async with running(slow) as place:
        place.records.put("a")
        await at.wait()
        for _ in range(3):
            place.records.put("a")
        place.records.put("b")
        assert await place.loop.next() == ("a", 1)
        assert await place.loop.next() == ("b", 1)  # others are not held up
        await asyncio.sleep(0.01)
        assert place.loop.steps.empty() and place.loop.at_once == 1
        go.set()
        assert await place.loop.next() == ("a", 4)
        await place.quiet()
        assert place.loop.steps.empty()


async def test_the_pause_that_a_step_asks_for_holds_also_when_it_wrote() -> None:
    async with running() as place:

        async def write() -> float:
            place.records.put("a")
            return 1000.0

        place.loop.outcomes[:] = [write]
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        assert place.records.resources["a"].version == 2
        assert place.loop.steps.empty()
        assert place.driver.queue.time_of("a") - asyncio.get_running_loop().time() > 900
        place.records.put("a")  # of somebody else: that holds no pause
        assert await place.loop.next() == ("a", 3)


async def test_what_another_writes_while_a_step_writes_too_is_looked_at_at_once() -> None:
    async with running() as place:
        at, go = asyncio.Event(), asyncio.Event()

        async def write() -> float:
            place.records.put("a")
            at.set()
            await go.wait()
            return 1000.0

        place.loop.outcomes[:] = [write]
        place.records.put("a")
        await at.wait()
        place.records.put("a")
        go.set()
        assert [await place.loop.next() for _ in range(2)] == [("a", 1), ("a", 3)]


async def test_what_a_step_started_and_left_behind_writes_as_anybody_else() -> None:
    async with running() as place:
        written = asyncio.Event()

        async def later() -> None:
            await written.wait()
            place.records.put("a")

        async def leave() -> None:
            place.loop.left = asyncio.create_task(later())  # type: ignore[attr-defined]

        place.loop.outcomes[:] = [leave]
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        written.set()
        assert await place.loop.next() == ("a", 2)


async def test_a_step_that_met_another_writer_is_made_again_at_once() -> None:
    async with running(Conflict("a")) as place:
        place.records.put("a")
        assert [await place.loop.next() for _ in range(2)] == [("a", 1), ("a", 1)]


async def test_a_loop_wakes_a_resource_that_did_not_change() -> None:
    async with running() as place:
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        place.loop.wake("a")
        assert await place.loop.next() == ("a", 1)


# ---------------------------------------------------------------------- who wakes whom


async def test_the_kinds_that_a_loop_watches_wake_it_and_no_other_does() -> None:
    of = {"part of a": "a", "part of none": None}
    async with running(watches={OTHER: lambda part: of[part.resource.name]}) as place:
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        before = place.records.found
        place.records.put("a log stream", kind="log-stream")
        place.records.put("part of none", kind=OTHER)
        await place.quiet()
        assert place.loop.steps.empty() and place.records.found == before
        place.records.put("part of a", kind=OTHER)
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        place.records.delete("part of a")
        assert await place.loop.next() == ("a", 1)


async def test_what_several_parts_tell_within_a_moment_is_looked_at_once() -> None:
    async with running(watches={OTHER: lambda _part: "a"}, watch_delay_s=0.05) as place:
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        before = asyncio.get_running_loop().time()
        for number in range(10):
            place.records.put(f"part {number}", kind=OTHER)
        assert await place.loop.next() == ("a", 1)
        assert asyncio.get_running_loop().time() - before >= 0.05
        await place.quiet()
        assert place.loop.steps.empty() and not place.driver.queue.due
        for number in range(10):
            place.records.put(f"part {number}", kind=OTHER)
        place.records.put("a")  # its own change does not wait for that
        assert await place.loop.next() == ("a", 2)
        await place.quiet()
        assert place.loop.steps.empty() and not place.driver.queue.due


async def test_a_part_that_its_step_wrote_does_not_wake_it() -> None:
    async with running(watches={OTHER: lambda _part: "a"}) as place:

        async def write() -> float:
            place.records.put("part of a", kind=OTHER)
            return 1000.0

        place.loop.outcomes[:] = [write]
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        assert place.loop.steps.empty() and "a" in place.driver.queue.due


async def test_what_a_change_costs_does_not_grow_with_the_number_of_resources() -> None:
    async with running() as place:
        for number in range(500):
            place.records.put(f"r{number}")
        for _ in range(500):
            await place.loop.next()
        await place.quiet()
        before = place.records.found
        place.records.put("r7")
        assert await place.loop.next() == ("r7", 2)
        await place.quiet()
        assert place.loop.loads == 1 and place.records.found - before == 1


async def test_a_settled_or_deleted_resource_is_let_go() -> None:
    async with running(1000.0, 1000.0) as place:
        for name in ("a", "b"):
            place.records.put(name)
            await place.loop.next()
        await place.quiet()
        assert set(place.driver.known) == {"a", "b"} == set(place.driver.queue.due)
        place.records.put("a", status="Settled")
        place.records.delete("b")
        async with asyncio.timeout(AT_ONCE_S):
            while place.driver.known or place.driver.queue.due:  # noqa: ASYNC110
                await asyncio.sleep(0)
        found = place.records.found
        place.records.put("a", status="Settled")  # it is nobody's business any more
        await place.quiet()
        assert place.loop.steps.empty() and place.records.found == found


async def test_nothing_is_kept_of_what_its_own_step_settled_or_deleted() -> None:
    async with running() as place:

        async def settle() -> float:
            place.records.put("a", status="Settled")
            return 1000.0

        async def delete() -> float:
            place.records.delete("b")
            return 1000.0

        place.loop.outcomes[:] = [settle, delete]
        for name in ("a", "b"):
            place.records.put(name)
            await place.loop.next()
            await place.quiet()
        assert not place.driver.known and not place.driver.queue.due


async def test_what_no_event_told_of_is_found_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.reconciler.LIST_S", 0.01)
    async with running() as place:
        for name in ("a", "b", "c"):
            place.records.put(name)
            assert await place.loop.next() == (name, 1)
        await place.quiet()
        place.records.listeners.clear()
        place.records.put("a")
        place.records.put("d")
        del place.records.resources["b"]
        assert sorted([await place.loop.next() for _ in range(2)]) == [("a", 2), ("d", 1)]
        async with asyncio.timeout(AT_ONCE_S):
            while "b" in place.driver.known:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        loads = place.loop.loads
        async with asyncio.timeout(AT_ONCE_S):
            while place.loop.loads < loads + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert place.loop.steps.empty()  # lists that have no news step nothing


# ---------------------------------------------------------------------- failures


@pytest.mark.usefixtures("no_backoff")
async def test_a_step_that_failed_is_told_and_made_again(caplog: pytest.LogCaptureFixture) -> None:
    async with running(OSError("no disk"), OSError("no disk")) as place:
        place.records.put("a")
        assert [await place.loop.next() for _ in range(3)] == [("a", 1)] * 3
        assert place.reconciler.failures() == {}  # that is the resource's matter
    told = [record.getMessage() for record in caplog.records]
    assert told == ["a: step failed, again in 0.0 s"] * 2


async def test_what_a_failing_step_wrote_does_not_make_it_fail_again_at_once() -> None:
    async with running() as place:

        async def fail() -> float:
            place.records.put("a")  # what is told in its status
            raise OSError("no disk")

        place.loop.outcomes[:] = [fail]
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)
        await place.quiet()
        assert place.loop.steps.empty() and "a" in place.driver.queue.due


@pytest.mark.usefixtures("no_backoff")
async def test_a_step_that_is_cancelled_from_inside_is_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancelled() -> None:
        inner = asyncio.create_task(asyncio.sleep(1000))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    async with running(cancelled, asyncio.CancelledError()) as place:
        place.records.put("a")
        assert [await place.loop.next() for _ in range(3)] == [("a", 1)] * 3
        place.records.put("b")
        assert await place.loop.next() == ("b", 1)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["a: step failed, again in 0.0 s"] * 2


@pytest.mark.usefixtures("no_backoff")
async def test_a_read_that_fails_is_told_and_made_again() -> None:
    async with running() as place:
        place.records.broken = OSError("disk I/O error")
        place.records.put("a")
        async with asyncio.timeout(AT_ONCE_S):
            while place.records.found < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert place.reconciler.failures() == {
            KIND: "records can't be read, which is tried again: OSError: disk I/O error"
        }
        assert place.loop.steps.empty()
        place.records.broken = None
        assert await place.loop.next() == ("a", 1)
        assert place.reconciler.failures() == {}


@pytest.mark.usefixtures("no_backoff")
async def test_nothing_is_said_any_more_of_what_was_deleted_before_it_could_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloche.work_queue.FIRST_RETRY_S", 1000.0)
    async with running() as place:
        place.records.broken = OSError("disk I/O error")
        place.records.put("a")
        async with asyncio.timeout(AT_ONCE_S):
            while not place.reconciler.failures():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await place.quiet()
        place.records.delete("a")
        async with asyncio.timeout(AT_ONCE_S):
            while place.reconciler.failures():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("error", [OSError("disk I/O error"), asyncio.CancelledError("inside")])
async def test_a_list_that_fails_is_made_again_and_meanwhile_events_are_followed(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    before = Recorded(records=Records(), kind=OTHER)
    before.records.put("a")
    async with running(others=[before], broken=[error, error]) as place:
        place.records.put("b")
        assert sorted([await place.loop.next() for _ in range(2)]) == [("a", 1), ("b", 1)]
        await place.quiet()
        assert place.loop.loads == 3 and place.reconciler.failures() == {}
    told = [record.getMessage() for record in caplog.records]
    assert told == ["the list for the loop thing failed, again in 0.0 s"] * 2


async def test_a_list_that_goes_on_failing_is_said_of_its_loop_alone() -> None:
    other = Recorded(records=Records(), kind=OTHER)
    async with running(others=[other], broken=[OSError("disk I/O error")]) as place:
        async with asyncio.timeout(AT_ONCE_S):
            while not place.reconciler.failures():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert place.reconciler.failures() == {
            KIND: "records can't be read, which is tried again: OSError: disk I/O error"
        }
        place.records.put("part", kind=OTHER)
        assert await other.next() == ("part", 1)


async def test_a_loop_that_ends_is_told_of_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = Recorded(records=Records(), kind=OTHER)
    async with running(others=[other]) as place:
        place.driver.queue = cast(Any, None)  # a mistake of the reconciler itself
        place.driver.something.set()
        async with asyncio.timeout(AT_ONCE_S):
            while not place.reconciler.failures():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        told = "AttributeError: 'NoneType' object has no attribute 'take'"
        assert place.reconciler.failures() == {KIND: f"it ended: {told}"}
        place.records.put("part", kind=OTHER)
        assert await other.next() == ("part", 1)
    assert "the loop thing ended" in [record.getMessage() for record in caplog.records]


@pytest.mark.usefixtures("no_backoff")
async def test_a_loop_that_fails_to_tell_what_a_change_is_to_it_harms_no_other() -> None:
    def mistaken(_part: Changed) -> str:
        raise LookupError("which?")

    other = Recorded(records=Records(), kind=OTHER)
    async with running(others=[other], watches={OTHER: mistaken}) as place:
        place.records.put("part", kind=OTHER)
        assert await other.next() == ("part", 1)
        place.records.put("a")
        assert await place.loop.next() == ("a", 1)


@pytest.mark.usefixtures("no_backoff")
async def test_a_record_that_its_loop_can_t_judge_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as place:
        with monkeypatch.context() as patched:
            patched.setattr(place.loop, "unsettled", lambda _resource: 1 / 0)
            place.records.put("a")
            async with asyncio.timeout(AT_ONCE_S):
                while place.records.found < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        assert await place.loop.next() == ("a", 1)
