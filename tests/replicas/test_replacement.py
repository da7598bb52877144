"""When a worker is replaced, how soon, and when that is given up: tables of cases."""

from dataclasses import replace

import pytest

from cloche.replicas.replacement import (
    ABSENT,
    Fault,
    ReplacementPolicy,
    Sight,
    WorkerRecord,
    due,
    left,
    observed,
    oldest_ready_first,
)

NOW = 1_000_000
POLICY = ReplacementPolicy(
    starts=3, unhealthy_s=30, steady_s=60, first_backoff_s=1, last_backoff_s=60, drain_s=65
)
NEW = WorkerRecord(id="w", created_ms=NOW - 10_000)
LAUNCHED = NEW.replace(launched_ms=NOW - 5_000)
READY = LAUNCHED.replace(ready_ms=NOW - 4_000)
RUNS = Sight(process="running")
UP = replace(RUNS, healthy=True)
STARTUP_S = 8.0


class Placed(WorkerRecord, frozen=True, kw_only=True):
    """What a service remembers of its workers beside."""

    zone: str


FAULTS: tuple[tuple[WorkerRecord, Sight, Fault | None], ...] = (
    (NEW, ABSENT, None),  # not launched yet
    (LAUNCHED, ABSENT, "lost"),
    (LAUNCHED, Sight(process="lost"), "lost"),
    (LAUNCHED, Sight(process="exited", exit_code=-9), "lost"),
    (LAUNCHED, Sight(process="exited", exit_code=1), "ended"),
    (READY, Sight(process="exited", exit_code=0), "ended"),
    (LAUNCHED, RUNS, None),
    (LAUNCHED.replace(launched_ms=NOW - 8_000), RUNS, None),
    (LAUNCHED.replace(launched_ms=NOW - 8_001), RUNS, "not started"),
    (LAUNCHED.replace(launched_ms=NOW - 8_001), UP, None),
    (LAUNCHED, replace(RUNS, silent_s=30), None),  # it is still starting
    (READY, replace(RUNS, silent_s=29.9), None),
    (READY, replace(RUNS, silent_s=30), "silent"),
)


@pytest.mark.parametrize(("worker", "sight", "fault"), FAULTS)
def test_what_is_wrong(worker: WorkerRecord, sight: Sight, fault: Fault | None) -> None:
    assert POLICY.fault(worker, sight, STARTUP_S, NOW) == fault


@pytest.mark.parametrize(
    ("restarts", "wait_s"),
    [(0, 0), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (20, 60), (5_000, 60)],
)
def test_replacing_backs_off(restarts: int, wait_s: float) -> None:
    new = POLICY.successor(LAUNCHED.replace(restarts=restarts), "new", NOW)
    assert (new.restarts, new.not_before_ms) == (restarts + 1, NOW + wait_s * 1000)
    assert due(new, ABSENT, new.not_before_ms)
    assert not due(new, ABSENT, new.not_before_ms - 1)


@pytest.mark.parametrize(("ready_ms", "restarts"), [(NOW - 60_000, 1), (NOW - 59_999, 8)])
def test_one_that_was_ready_for_long_starts_counting_anew(ready_ms: int, restarts: int) -> None:
    dead = LAUNCHED.replace(ready_ms=ready_ms, restarts=7)
    assert POLICY.successor(dead, "new", NOW).restarts == restarts


def test_successor_is_at_the_same_place_and_has_done_nothing_yet() -> None:
    dead = Placed(id="old", created_ms=1, launched_ms=2, ready_ms=3, left_ms=4, zone="a")
    new = POLICY.successor(dead, "new", NOW)
    assert new == Placed(id="new", created_ms=NOW, restarts=1, not_before_ms=NOW, zone="a")


@pytest.mark.parametrize(
    ("fault", "restarts", "gives_up"),
    [
        ("lost", 0, False),
        ("lost", 1, False),
        ("lost", 2, True),
        ("ended", 0, True),
        ("not started", 0, True),
        ("silent", 0, True),
    ],
)
def test_when_a_new_one_is_given_up(fault: Fault, restarts: int, gives_up: bool) -> None:
    assert POLICY.gives_up(LAUNCHED.replace(restarts=restarts), fault) is gives_up


def test_only_what_was_never_launched_is_due() -> None:
    assert due(NEW, ABSENT, NOW)
    assert not due(NEW, RUNS, NOW)
    assert not due(LAUNCHED, ABSENT, NOW)


def test_times_are_those_of_the_first_sight() -> None:
    assert observed(NEW, ABSENT, NOW) == NEW
    found = observed(NEW, RUNS, NOW)  # launched before the server died
    assert (found.launched_ms, found.ready_ms) == (NOW, None)
    assert observed(LAUNCHED, UP, NOW) == LAUNCHED.replace(ready_ms=NOW)
    assert observed(READY, UP, NOW) == READY


def test_who_stays_when_there_are_too_many() -> None:
    later, newest = READY.replace(ready_ms=NOW), NEW.replace(created_ms=NOW)
    assert oldest_ready_first([newest, later, NEW, READY]) == [READY, later, NEW, newest]


@pytest.mark.parametrize(
    ("busy", "since_ms", "drained"),
    [(False, 0, True), (True, 0, False), (True, 65_000, False), (True, 65_001, True)],
)
def test_one_on_its_way_out_finishes_its_requests(busy: bool, since_ms: int, drained: bool) -> None:
    [gone] = left([READY], NOW - since_ms)
    assert POLICY.drained(gone, replace(UP, busy=busy), NOW) is drained
