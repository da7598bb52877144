"""The work queue: what is taken when, on times of no clock."""

from __future__ import annotations

import random

import pytest

from cloche.work_queue import LAST_RETRY_S, NEVER, STALE, WorkQueue

NOW = 1000.0


@pytest.fixture
def queue() -> WorkQueue[str]:
    return WorkQueue()


def test_what_is_added_often_is_worked_on_once(queue: WorkQueue[str]) -> None:
    for key in ("b", "a", "b", "b"):
        queue.add(key)
    assert queue.take(NOW, 9) == ["b", "a"]
    assert queue.take(NOW, 9) == []


def test_what_is_added_during_a_run_runs_once_more_after_it(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.take(NOW, 9) == ["a"]
    queue.add("a")
    queue.add("a")
    assert queue.take(NOW, 9) == []
    queue.done("a")
    assert queue.take(NOW, 9) == ["a"]
    queue.done("a")
    assert queue.take(NOW, 9) == [] and queue.next_time() == NEVER


def test_so_many_are_taken_and_the_others_keep_their_order(queue: WorkQueue[str]) -> None:
    for key in "abcde":
        queue.add(key)
    assert queue.take(NOW, 2) == ["a", "b"]
    queue.add("a")
    queue.done("a")
    assert queue.take(NOW, 2) == ["c", "d"]
    assert queue.take(NOW, 9) == ["e", "a"]


def test_what_is_due_waits_for_its_time(queue: WorkQueue[str]) -> None:
    queue.add_at("late", NOW + 2)
    queue.add_at("soon", NOW + 1)
    assert queue.next_time() == NOW + 1
    assert queue.take(NOW, 9) == []
    assert queue.take(NOW + 1, 9) == ["soon"]
    assert queue.take(NOW + 2, 9) == ["late"]


def test_a_change_comes_before_the_time_and_replaces_it(queue: WorkQueue[str]) -> None:
    queue.add_at("a", NOW + 1)
    queue.add("a")
    assert queue.take(NOW, 9) == ["a"]
    queue.done("a")
    assert queue.take(NOW + 2, 9) == []


def test_of_two_times_the_earlier_counts(queue: WorkQueue[str]) -> None:
    queue.add_at("a", NOW + 5)
    queue.add_at("a", NOW + 1)
    queue.add_at("a", NOW + 9)
    assert queue.take(NOW + 1, 9) == ["a"]
    queue.done("a")
    assert queue.take(NOW + 99, 9) == []


def test_a_time_that_comes_during_a_run_is_taken_after_it(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.take(NOW, 9)
    queue.add_at("a", NOW + 1)
    assert queue.take(NOW + 2, 9) == []
    queue.done("a")
    assert queue.take(NOW + 2, 9) == ["a"]


def test_what_failed_is_tried_later_each_time_until_it_works(queue: WorkQueue[str]) -> None:
    pauses = [queue.retry("a", NOW) for _ in range(10)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert queue.take(NOW + 0.4, 9) == [] and queue.take(NOW + 0.5, 9) == ["a"]
    queue.worked("a")
    assert queue.retry("a", NOW) == 0.5
    queue.failures["a"] = 10**6
    assert queue.retry("a", NOW) == LAST_RETRY_S


def test_nothing_is_kept_of_what_was_removed(queue: WorkQueue[str]) -> None:
    queue.add("ready")
    queue.add_at("due", NOW + 1)
    queue.retry("failed", NOW)
    for key in ("ready", "due", "failed", "unknown"):
        queue.remove(key)
        assert key not in queue
    assert queue.take(NOW + 99, 9) == [] and not queue.failures
    queue.add("running")
    queue.take(NOW, 9)
    queue.add("running")
    queue.remove("running")
    queue.done("running")
    assert queue.take(NOW, 9) == []


def test_times_that_were_replaced_take_no_memory(queue: WorkQueue[str]) -> None:
    for number in range(10_000):
        queue.add_at("a", NOW + 60)
        queue.add("a")
        assert queue.take(NOW, 9) == ["a"]
        queue.done("a")
        queue.add_at("b", NOW + 20_000 - number)
    assert len(queue.times) <= 2 * len(queue.due) + STALE + 1


def test_whatever_happens_no_key_runs_twice_at_once_and_none_is_lost() -> None:
    """Random orders of everything, against the plainest model of what is owed."""
    random_ = random.Random(7)
    for _ in range(200):
        queue, now = WorkQueue[int](), 0.0
        owed: set[int] = set()  # to be run after now
        running: set[int] = set()
        for _ in range(200):
            key, now = random_.randrange(4), now + random_.random()
            match random_.randrange(4):
                case 0:
                    queue.add(key)
                    owed.add(key)
                case 1:
                    queue.add_at(key, now + random_.random())
                    owed.add(key)
                case 2:
                    taken = queue.take(now, random_.randrange(1, 4))
                    assert not running & set(taken) and len(taken) == len(set(taken))
                    running |= set(taken)
                    owed -= set(taken)
                case _:
                    if running:
                        done = random_.choice(sorted(running))
                        queue.done(done)
                        running.remove(done)
            assert queue.running == running
            assert owed <= set(queue.ready) | queue.again | set(queue.due)
        for done in running:
            queue.done(done)
        assert owed <= set(queue.take(now + 2, 99))
