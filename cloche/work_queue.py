"""A queue of keys to work on: each once at a time, and once more when it was added meanwhile.

Client-go's work queue is the model (`util/workqueue`): of a key only that there is work is kept,
never how often it was added. Pure: times come in as arguments, in seconds of any clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

NEVER = float("inf")
STALE = 64  # entries of the heap that may be out of date, beside as many as there are in date
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 60.0


@dataclass
class WorkQueue(Generic[K]):
    """What is ready, what runs, what runs and was added again, and what is due later."""

    ready: dict[K, None] = field(default_factory=dict)  # in the order in which they came
    running: set[K] = field(default_factory=set)
    again: set[K] = field(default_factory=set)
    due: dict[K, tuple[float, int]] = field(default_factory=dict)  # its time, and its entry there:
    times: list[tuple[float, int, K]] = field(default_factory=list)  # a heap; some are out of date
    failures: dict[K, int] = field(default_factory=dict)
    entries: int = 0  # of the heap so far; of two with the same time the older goes first

    def add(self, key: K) -> None:
        """Have a key worked on: now, or once more when it is being worked on."""
        if key in self.running:
            self.again.add(key)
        else:
            self.due.pop(key, None)
            self.ready[key] = None

    def add_at(self, key: K, time: float) -> None:
        """Have a key worked on at a time, unless it comes to that before."""
        if key in self.ready or key in self.again or self.time_of(key) <= time:
            return
        self.entries += 1
        self.due[key] = (time, self.entries)
        heapq.heappush(self.times, (time, self.entries, key))
        if len(self.times) > 2 * len(self.due) + STALE:
            self.times = [(time, entry, key) for key, (time, entry) in self.due.items()]
            heapq.heapify(self.times)

    def take(self, now: float, most: int) -> list[K]:
        """Return keys to work on, at most so many; each is running until it is `done`."""
        while self.times and self.times[0][0] <= now:
            time, entry, key = heapq.heappop(self.times)
            if self.due.get(key) == (time, entry):
                del self.due[key]
                self.add(key)
        taken = list(islice(self.ready, most))
        for key in taken:
            del self.ready[key]
            self.running.add(key)
        return taken

    def done(self, key: K) -> None:
        """Take note that a key is not being worked on any more."""
        self.running.remove(key)
        if key in self.again:
            self.again.remove(key)
            self.add(key)

    def retry(self, key: K, now: float) -> float:
        """Have a key worked on that failed, later each time; return in how many seconds."""
        failures = self.failures[key] = self.failures.get(key, 0) + 1
        pause_s = backoff_s(failures)
        self.add_at(key, now + pause_s)
        return pause_s

    def worked(self, key: K) -> None:
        """Take note that a key did not fail: its next failure is the first."""
        self.failures.pop(key, None)

    def remove(self, key: K) -> None:
        """Have no more work done on a key; the work under way goes on."""
        self.ready.pop(key, None)
        self.due.pop(key, None)
        self.again.discard(key)
        self.failures.pop(key, None)

    def time_of(self, key: K) -> float:
        """Return when a key is due, of those that wait for a time; infinity: it is not."""
        return self.due[key][0] if key in self.due else NEVER

    def next_time(self) -> float:
        """Return when the next key is to be taken: minus infinity is now, infinity never."""
        if self.ready:
            return -NEVER
        return self.times[0][0] if self.times else NEVER

    def __contains__(self, key: K) -> bool:
        return key in self.ready or key in self.running or key in self.due


def backoff_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 32))
