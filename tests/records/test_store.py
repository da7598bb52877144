"""Resources: compare and swap, lists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from cloche.core.clock import ManualClock
from cloche.records.store import (
    AUTHOR,
    AlreadyExists,
    Change,
    Changed,
    Conflict,
    Listing,
    Resource,
    Store,
    insert_in,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    store = Store.open(tmp_path / "cloche.db", clock)
    yield store
    store.close()


def job(clock: ManualClock, name: str, **others: object) -> Resource:
    made = Resource(
        account="1",
        region="r",
        kind="job",
        name=name,
        arn=f"arn:{name}",
        status="InProgress",
        created=clock.now(),
        modified=clock.now(),
        desired={"Name": name, "ü": [1, 2.5, None, True]},
    )
    return replace(made, **others)  # type: ignore[arg-type]


async def test_insert_get_update_delete(store: Store, clock: ManualClock) -> None:
    changed: list[Changed] = []
    store.on_change(changed.append)
    first = await store.insert(job(clock, "a"))
    assert store.get("job", "1", "r", "a") == first
    assert store.find("arn:a") == first
    clock.advance(1.5)
    second = await store.update(first, status="Completed", document={"x": 1})
    assert store.get("job", "1", "r", "a") == second
    assert (second.version, second.modified) == (2, clock.now())
    await store.delete(second)
    assert store.get("job", "1", "r", "a") is None
    assert store.find("arn:a") is None
    assert changed == [
        Changed(None, first, None),
        Changed(first, second, None),
        Changed(second, None, None),
    ]


async def test_a_name_is_taken_once(store: Store, clock: ManualClock) -> None:
    await store.insert(job(clock, "a"))
    with pytest.raises(AlreadyExists):
        await store.insert(job(clock, "a"))
    with pytest.raises(AlreadyExists):  # an ARN too
        await store.insert(job(clock, "b", arn="arn:a"))
    assert [one.name for one in store.each("job")] == ["a"]


async def test_of_many_writers_one_wins(store: Store, clock: ManualClock) -> None:
    old = await store.insert(job(clock, "a"))
    answers = await asyncio.gather(
        *[store.update(old, document={"n": n}) for n in range(20)], return_exceptions=True
    )
    assert sum(isinstance(answer, Resource) for answer in answers) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 19
    with pytest.raises(Conflict):
        await store.delete(old)


async def test_a_change_that_raises_undoes_itself_alone(store: Store, clock: ManualClock) -> None:
    def half(connection: Connection) -> None:
        insert_in(connection, job(clock, "half"))
        raise KeyError("half")

    from_all = await asyncio.gather(
        store.insert(job(clock, "a")),
        store.write(half),
        store.insert(job(clock, "b")),
        return_exceptions=True,
    )
    assert isinstance(from_all[1], KeyError)
    assert {one.name for one in store.each("job")} == {"a", "b"}


async def test_one_who_gave_up_waiting_harms_nobody(store: Store, clock: ManualClock) -> None:
    changed: list[Changed] = []
    store.on_change(changed.append)
    gone = asyncio.ensure_future(store.insert(job(clock, "a")))
    await asyncio.sleep(0)
    gone.cancel()
    await store.insert(job(clock, "b"))
    assert store.get("job", "1", "r", "a") is not None
    assert [each.resource.name for each in changed] == ["a", "b"]  # loops hear of it all the same


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "other.db")
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.write_now(lambda connection: None)


@pytest.mark.parametrize("sort_by", ["name", "created", "modified", "status"])
@pytest.mark.parametrize("descending", [False, True])
async def test_pages_hold_everything_once(
    store: Store, clock: ManualClock, sort_by: str, descending: bool
) -> None:
    for number in range(25):
        status = ("Completed", "Failed", "InProgress")[number % 3]
        await store.insert(job(clock, f"job-{number:02}", status=status))
        if number % 4:
            clock.advance(1)
    listing = Listing(
        kind="job",
        account="1",
        region="r",
        sort_by=sort_by,  # type: ignore[arg-type]
        descending=descending,
        limit=7,
    )
    seen: list[Resource] = []
    page = store.page(listing)
    while True:
        seen += page.resources
        if page.next_token is None:
            break
        page = store.page(replace(listing, after=page.next_token))
    assert len(seen) == 25
    order = [(getattr(one, sort_by), one.name) for one in seen]
    assert order == sorted(order, reverse=descending)


async def test_filter_by_what_the_document_has(store: Store, clock: ManualClock) -> None:
    documents: list[dict[str, object]] = [{"pool": {"status": s}} for s in ("Available", "Reused")]
    for number, document in enumerate([*documents, {"pool": None}, {}]):
        await store.insert(replace(job(clock, f"job-{number}"), document=document))
    listing = Listing(
        kind="job", account="1", region="r", document_has=(("pool", "status"), "Available")
    )
    assert [one.name for one in store.page(listing).resources] == ["job-0"]


async def test_changes_that_go_together_are_all_made_or_none(
    store: Store, clock: ManualClock
) -> None:
    first, other = job(clock, "first"), job(clock, "other")
    await store.insert(first)
    await store.insert(other)
    gone = Change(old=other)
    made = Change(new=job(clock, "made"))
    stale = Change(old=replace(other, version=7), new=store.newer(other, status="Failed"))
    for also, error in (([gone, stale], Conflict), ([gone, Change(new=first)], AlreadyExists)):
        with pytest.raises(error):
            await store.update(first, status="Stopped", also=also)
        assert [one.status for one in store.each("job")] == ["InProgress"] * 2
        assert store.find(other.arn) == other
    changed: list[Changed] = []
    store.on_change(changed.append)
    updated = await store.update(first, status="Stopped", also=[gone, made])
    assert store.each("job") == [updated, made.new]
    told = [(each.old, each.new) for each in changed]
    assert told == [(first, updated), (other, None), (None, made.new)]


async def test_a_change_tells_on_whose_behalf_it_was_written(
    store: Store, clock: ManualClock
) -> None:
    changed: list[Changed] = []
    store.on_change(changed.append)

    async def write(name: str) -> None:
        AUTHOR.set(f"author of {name}")
        await store.insert(job(clock, name))

    await asyncio.gather(*(asyncio.create_task(write(name)) for name in "ab"))
    await store.insert(job(clock, "c"))
    told = {each.resource.name: each.author for each in changed}
    assert told == {"a": "author of a", "b": "author of b", "c": None}


async def test_filters(store: Store, clock: ManualClock) -> None:
    start = clock.now()
    for name in ("Alpha-1", "alpha-2", "beta%1"):
        await store.insert(job(clock, name))
        clock.advance(10)
    await store.insert(job(clock, "elsewhere", region="other"))
    both = Listing(kind="job", account="1", region="r")

    def names(**filters: object) -> list[str]:
        return [one.name for one in store.page(replace(both, **filters)).resources]  # type: ignore[arg-type]

    assert names() == ["Alpha-1", "alpha-2", "beta%1"]
    assert names(name_contains="ALPHA") == ["Alpha-1", "alpha-2"]
    assert names(name_contains="%") == ["beta%1"]
    assert names(name_prefix="beta%") == ["beta%1"]
    assert names(statuses=["Failed"]) == []
    assert names(created_after=start) == ["alpha-2", "beta%1"]
    assert names(created_before=clock.now(), statuses=["InProgress"]) == names()
    assert [one.name for one in store.each("job")] == ["Alpha-1", "alpha-2", "beta%1", "elsewhere"]
