"""Events are written in batches, found from the newest on, and bounded in size."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.events import AnsweredQuestion, Event, EventLog, Search
from cloche.events import event_log as event_logs

EVERY = Search(lambda _event: True)


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function is not test_what_was_added_is_written_within_a_second:
        monkeypatch.setattr(event_logs, "BATCH_S", 0.0)


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
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "events")
    log.start()
    yield log
    log.close()


def numbers(log: EventLog, search: Search = EVERY) -> list[int]:
    return [each.time_ms for each in log.find(search)]


def test_the_newest_come_first_whole(log: EventLog) -> None:
    asked = (AnsweredQuestion(action="s3:GetObject", resource="arn:aws:s3:::b/k"),)
    made = [event(number, asked=asked, agent="a\nb") for number in range(1, 5)]
    for each in made:
        log.add(each)
    log.flush()
    assert list(log.find(EVERY)) == made[::-1]


def test_what_was_added_is_written_within_a_second(log: EventLog) -> None:
    log.add(event(1))
    with log.written:
        assert log.written.wait_for(lambda: log.done == 1, 1.0)
    assert b"request-1" in log.files()[0].read_bytes()


def test_the_files_are_for_their_owner_only(log: EventLog) -> None:
    log.add(event(1))
    log.flush()
    assert log.folder.stat().st_mode & 0o777 == 0o700
    assert log.files()[0].stat().st_mode & 0o777 == 0o600


def test_all_that_waits_is_written_at_the_end(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    log.start()
    for number in range(1000):
        log.add(event(number))
    log.close()
    assert numbers(log) == list(range(1000))[::-1]


def test_a_restart_goes_on_in_a_new_file(tmp_path: Path) -> None:
    for number in (1, 2):
        log = EventLog(tmp_path / "events")
        log.start()
        log.add(event(number))
        log.close()
    assert [file.name for file in log.files()] == ["0000000001.jsonl", "0000000002.jsonl"]
    assert numbers(log) == [2, 1]


def test_the_oldest_go_when_all_are_too_large(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", most_bytes=20_000, file_bytes=5_000)
    log.start()
    for number in range(1, 501):
        log.add(event(number))
        if number % 10 == 0:
            log.flush()
    log.close()
    total = sum(file.stat().st_size for file in log.files())
    kept = numbers(log)
    assert 10_000 < total <= 25_000
    assert kept == list(range(500, 500 - len(kept), -1)) and 0 < len(kept) < 200


@pytest.mark.control("with room for all, all are kept")
def test_nothing_goes_that_has_room(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", file_bytes=5_000)
    log.start()
    for number in range(1, 501):
        log.add(event(number))
        if number % 10 == 0:
            log.flush()
    log.close()
    assert numbers(log) == list(range(500, 0, -1))


def test_a_torn_line_is_passed_over(log: EventLog) -> None:
    log.add(event(1))
    log.flush()
    file = log.files()[0]
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2] + b"\n" + whole + b'{"id": "cut')
    assert numbers(log) == [1, 1]


def test_lines_longer_than_a_block(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_logs, "BLOCK", 7)
    for number in range(1, 4):
        log.add(event(number, agent="x" * 100 * number))
    log.flush()
    assert numbers(log) == [3, 2, 1]


def test_a_time_and_a_needle(log: EventLog) -> None:
    hour = event_logs.ORDER_MS
    for number in range(1, 11):
        log.add(event(number * hour, operation="PutObject" if number % 2 else "GetObject"))
    log.flush()
    between = Search(lambda _event: True, since_ms=3 * hour, until_ms=7 * hour)
    assert numbers(log, between) == [n * hour for n in (7, 6, 5, 4, 3)]
    put = Search(lambda event: event.operation == "PutObject", 3 * hour, 7 * hour, b'"PutObject"')
    assert numbers(log, put) == [n * hour for n in (7, 5, 3)]


def test_a_search_that_takes_too_long_says_so(log: EventLog) -> None:
    log.add(event(1))
    log.flush()
    with pytest.raises(TimeoutError, match="too many to be looked through"):
        list(log.find(EVERY, within_s=-1.0))


def test_a_full_disk_loses_nothing_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_logs, "RETRY_S", 0.01)
    write, left = os.write, [3]

    def full(descriptor: int, content: Any) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    log = EventLog(tmp_path / "events")
    log.start()
    log.add(event(1))
    log.flush()
    log.close()
    assert numbers(log) == [1]
    said = [record.getMessage() for record in caplog.records if record.name == "cloche.events"]
    assert said == [f"Events can't be written to {log.folder}: [Errno 28] No space left on device"]


def test_what_comes_too_fast_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_logs, "WAITING", 10)
    log = EventLog(tmp_path / "events")
    for number in range(1, 13):
        log.add(event(number))
    log.start()
    log.close()
    assert len(numbers(log)) == 10
    assert "2 events were lost: they came faster than they were written" in caplog.text
