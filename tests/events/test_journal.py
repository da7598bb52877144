"""Events are written in batches, found from the newest on, and bounded in size."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.events import Answered, Event, Journal, Search
from cloche.events import journal as journals

EVERY = Search(lambda _event: True)


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function is not test_what_was_added_is_written_within_a_second:
        monkeypatch.setattr(journals, "BATCH_S", 0.0)


def event(number: int, **more: Any) -> Event:
    made: dict[str, Any] = {
        "id": f"request-{number}",
        "time_ms": number,
        "account": "123456789012",
        "region": "us-east-1",
        "service": "s3",
        "operation": "GetObject",
        "principal": "arn:aws:iam::123456789012:root",
        "kind": "root",
    }
    return Event(**made | more)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "events")
    journal.start()
    yield journal
    journal.close()


def numbers(journal: Journal, search: Search = EVERY) -> list[int]:
    return [each.time_ms for each in journal.find(search)]


def test_the_newest_come_first_whole(journal: Journal) -> None:
    asked = (Answered(action="s3:GetObject", resource="arn:aws:s3:::b/k"),)
    made = [event(number, asked=asked, agent="a\nb") for number in range(1, 5)]
    for each in made:
        journal.add(each)
    journal.flush()
    assert list(journal.find(EVERY)) == made[::-1]


def test_what_was_added_is_written_within_a_second(journal: Journal) -> None:
    journal.add(event(1))
    with journal.written:
        assert journal.written.wait_for(lambda: journal.done == 1, 1.0)
    assert b"request-1" in journal.files()[0].read_bytes()


def test_the_files_are_for_their_owner_only(journal: Journal) -> None:
    journal.add(event(1))
    journal.flush()
    assert journal.folder.stat().st_mode & 0o777 == 0o700
    assert journal.files()[0].stat().st_mode & 0o777 == 0o600


def test_all_that_waits_is_written_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events")
    journal.start()
    for number in range(1000):
        journal.add(event(number))
    journal.close()
    assert numbers(journal) == list(range(1000))[::-1]


def test_a_restart_goes_on_in_a_new_file(tmp_path: Path) -> None:
    for number in (1, 2):
        journal = Journal(tmp_path / "events")
        journal.start()
        journal.add(event(number))
        journal.close()
    assert [file.name for file in journal.files()] == ["0000000001.jsonl", "0000000002.jsonl"]
    assert numbers(journal) == [2, 1]


def test_the_oldest_go_when_all_are_too_large(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events", most_bytes=20_000, file_bytes=5_000)
    journal.start()
    for number in range(1, 501):
        journal.add(event(number))
        if number % 10 == 0:
            journal.flush()
    journal.close()
    total = sum(file.stat().st_size for file in journal.files())
    kept = numbers(journal)
    assert 10_000 < total <= 25_000
    assert kept == list(range(500, 500 - len(kept), -1)) and 0 < len(kept) < 200


@pytest.mark.control("with room for all, all are kept")
def test_nothing_goes_that_has_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events", file_bytes=5_000)
    journal.start()
    for number in range(1, 501):
        journal.add(event(number))
        if number % 10 == 0:
            journal.flush()
    journal.close()
    assert numbers(journal) == list(range(500, 0, -1))


def test_a_torn_line_is_passed_over(journal: Journal) -> None:
    journal.add(event(1))
    journal.flush()
    file = journal.files()[0]
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2] + b"\n" + whole + b'{"id": "cut')
    assert numbers(journal) == [1, 1]


def test_lines_longer_than_a_block(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "BLOCK", 7)
    for number in range(1, 4):
        journal.add(event(number, agent="x" * 100 * number))
    journal.flush()
    assert numbers(journal) == [3, 2, 1]


def test_a_time_and_a_needle(journal: Journal) -> None:
    hour = journals.ORDER_MS
    for number in range(1, 11):
        journal.add(event(number * hour, operation="PutObject" if number % 2 else "GetObject"))
    journal.flush()
    between = Search(lambda _event: True, since_ms=3 * hour, until_ms=7 * hour)
    assert numbers(journal, between) == [n * hour for n in (7, 6, 5, 4, 3)]
    put = Search(lambda event: event.operation == "PutObject", 3 * hour, 7 * hour, b'"PutObject"')
    assert numbers(journal, put) == [n * hour for n in (7, 5, 3)]


def test_a_search_that_takes_too_long_says_so(journal: Journal) -> None:
    journal.add(event(1))
    journal.flush()
    with pytest.raises(TimeoutError, match="too many to be looked through"):
        list(journal.find(EVERY, within_s=-1.0))


def test_a_full_disk_loses_nothing_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "RETRY_S", 0.01)
    write, left = os.write, [3]

    def full(descriptor: int, content: Any) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    journal = Journal(tmp_path / "events")
    journal.start()
    journal.add(event(1))
    journal.flush()
    journal.close()
    assert numbers(journal) == [1]
    said = [record.getMessage() for record in caplog.records if record.name == "cloche.events"]
    assert said == [
        f"Events can't be written to {journal.folder}: [Errno 28] No space left on device"
    ]


def test_what_comes_too_fast_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "WAITING", 10)
    journal = Journal(tmp_path / "events")
    for number in range(1, 13):
        journal.add(event(number))
    journal.start()
    journal.close()
    assert len(numbers(journal)) == 10
    assert "2 events were lost: they came faster than they were written" in caplog.text
