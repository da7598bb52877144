"""What a look at logs costs grows with what is shown and what changed, not with the streams."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloche.core.clock import ManualClock
from cloche.records.resource import Listing, page_query
from cloche.records.store import Store
from cloche.services.logs import events, logs
from cloche.services.logs.events import EventSearch, merge, run_search, sources
from cloche.services.logs.files import LogFile
from cloche.services.logs.logs import Logs
from cloche.services.logs.pattern import parse_pattern

PLACE = ("123456789012", "us-east-1")
STREAMS = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "cloche.db", ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    yield made
    made.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were opened for reading."""
    found: list[Path] = []

    class Counted(LogFile):
        def __init__(self, path: Path) -> None:
            found.append(path)
            super().__init__(path)

    monkeypatch.setattr(events, "LogFile", Counted)
    monkeypatch.setattr(logs, "LogFile", Counted)
    return found


async def filled(store: Store, folder: Path) -> Logs:
    """Logs of streams that follow one another in time: each has ten lines."""
    made = Logs(store, folder)
    for number in range(STREAMS):
        path = await made.open_stream(*PLACE, "group", f"s{number:03d}")
        lines = [f"{number * 1000 + line} {number}-{line}\n" for line in range(10)]
        path.write_text("".join(lines))
    return made


def search(**changes: Any) -> EventSearch:
    values: dict[str, Any] = {
        "pattern": parse_pattern(""),
        "start_ms": 0,
        "end_ms": 10**15,
        "forward": True,
        "limit": 15,
        "after": None,
    }
    return EventSearch(**(values | changes))


async def test_filter_opens_what_it_shows(store: Store, tmp_path: Path, opened: list[Path]) -> None:
    made = await filled(store, tmp_path / "logs")
    group = made.group(*PLACE, "group")
    assert group is not None

    def run(wanted: EventSearch) -> list[str]:
        found = sources(made, made.streams(group), wanted)
        return [event["message"] for event in run_search(found, wanted)["events"]]

    assert run(search(limit=2)) == ["0-0", "0-1"]
    assert len(opened) >= STREAMS  # once, to know what they hold
    for wanted, shown in (
        (search(), ["0-0", "1-4"]),
        (search(forward=False), [f"{STREAMS - 1}-9", f"{STREAMS - 2}-5"]),
        (search(start_ms=30_000, end_ms=31_004), ["30-0", "31-4"]),
        (search(after=(30_009, "s030", 10**6)), ["31-0", "32-4"]),
        (search(forward=False, after=(30_000, "s030", 0)), ["29-9", "28-5"]),
    ):
        opened.clear()
        found = run(wanted)
        assert [found[0], found[-1]] == shown
        assert len({*opened}) <= 3, wanted
    with made.file(made.stream(*PLACE, "group", "s007")).open("a") as file:  # type: ignore[arg-type]
        file.write("99999999 late\n")
    assert run(search(forward=False, limit=1)) == ["late"]


async def test_the_merge_is_that_of_all_records(store: Store, tmp_path: Path) -> None:
    made = Logs(store, tmp_path / "logs")
    expected: list[tuple[int, str, str]] = []
    for number in range(20):
        name = f"s{number:02d}"
        path = await made.open_stream(*PLACE, "group", name)
        times = sorted((number * 37 + line * 91) % 1000 for line in range(30))
        path.write_text("".join(f"{at} {name} {at}\n" for at in times))
        expected += [(at, name, f"{name} {at}") for at in times]
    group = made.group(*PLACE, "group")
    assert group is not None
    for forward in (True, False):
        wanted = search(forward=forward)
        found = [
            (key[0], key[1], place.record.text)
            for key, place in merge(sources(made, made.streams(group), wanted), wanted)
        ]
        assert [each[:2] for each in found] == [
            each[:2] for each in sorted(expected, reverse=not forward)
        ]


async def test_groups_and_streams_are_described_without_a_look_at_the_others(
    store: Store, tmp_path: Path, opened: list[Path]
) -> None:
    made = await filled(store, tmp_path / "logs")
    group = made.group(*PLACE, "group")
    assert group is not None
    assert made.stored_bytes(group) == sum(
        made.file(stream).stat().st_size for stream in made.streams(group)
    )
    assert opened == []
    page = made.page(group, "s01", "s013", True, 2)
    assert [stream.name for stream in page.resources] == ["group:s012", "group:s011"]


def test_a_prefix_of_names_is_a_range_of_the_key(store: Store) -> None:
    place = {"account": PLACE[0], "region": PLACE[1]}
    query = page_query(Listing(kind="log-stream", **place, name_prefix="g:s%_", sort_by="name"))
    text = str(query.compile(store.engine, compile_kwargs={"literal_binds": True}))
    (plan,) = store.read().exec_driver_sql("EXPLAIN QUERY PLAN " + text).all()
    assert "name>? AND name<?" in plan[-1] and "USING INDEX" in plan[-1]
