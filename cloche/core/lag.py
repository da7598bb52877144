"""How late the event loop is: what everybody who speaks to the server waits for, whatever they ask.

A timer looks, always, how much later than planned it is called; its lateness is counted in
histograms of the last minutes. What holds the loop longer than `EVERY_S` is never missed.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

EVERY_S = 0.05  # a look costs 40 µs or so: 0.1% of a core
SPAN_S, SPANS = 10.0, 30  # a histogram for each span; those of the last five minutes are kept
# The buckets' upper bounds, each a quarter above the one before: 0.1 ms to more than a minute.
BOUNDS_MS: Sequence[float] = tuple(0.1 * 1.25**step for step in range(62))


class Span:
    """Counts latenesses in buckets; `most_ms` is the greatest."""

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.most_ms = 0.0

    def add(self, late_ms: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_MS, late_ms)] += 1
        self.most_ms = max(self.most_ms, late_ms)


class Lag:
    """Measures the event loop that it is started in."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now  # uvloop's own time has no fractions of a millisecond
        self.spans: deque[Span] = deque([Span(now())], maxlen=SPANS)
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, until `stop`."""
        planned = self.now() + EVERY_S
        self.timer = asyncio.get_running_loop().call_later(EVERY_S, self._look, planned)

    def stop(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()

    def report(self) -> dict[str, float]:
        """Return quantiles (a bucket's upper bound) and the most of the last minutes, in
        milliseconds; how many looks these are, and of how many seconds.
        """
        counts = [sum(each) for each in zip(*(span.counts for span in self.spans), strict=True)]
        most = max(span.most_ms for span in self.spans)
        found = {
            "looks": sum(counts),
            "seconds": round(self.now() - self.spans[0].begin),
            "most_ms": round(most, 3),
        }
        for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p99_9_ms", 0.999)):
            found[name] = round(min(most, quantile(counts, part)), 3)
        return found

    def _look(self, planned: float) -> None:
        now = self.now()
        if now - self.spans[-1].begin >= SPAN_S:
            self.spans.append(Span(now))
        self.spans[-1].add(max(0.0, now - planned) * 1000)
        self.start()


def quantile(counts: Sequence[int], part: float) -> float:
    """Return the upper bound of the bucket below which that part of the values lies."""
    left = part * sum(counts)
    for bound, count in zip(BOUNDS_MS, counts, strict=False):
        left -= count
        if left <= 0:
            return bound
    return float("inf")
