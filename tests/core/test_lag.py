"""How late the event loop is."""

import asyncio
import time

from cloche.core.lag import BOUNDS_MS, EVERY_S, SPAN_S, SPANS, Lag, quantile

HOLD_S = 2 * EVERY_S


async def test_what_holds_the_loop_is_seen() -> None:
    lag = Lag()
    lag.start()
    time.sleep(HOLD_S)  # noqa: ASYNC251 - it is what is measured
    await asyncio.sleep(2 * EVERY_S)
    lag.stop()
    found = lag.report()
    assert found["looks"] > 0 and found["most_ms"] >= (HOLD_S - EVERY_S) * 1000
    assert found["p50_ms"] <= found["p99_ms"] <= found["p99_9_ms"] <= found["most_ms"]


async def test_the_last_minutes_count() -> None:
    at = 0.0
    lag = Lag(now=lambda: at)
    lag.start()
    lag._look(planned=-1.0)
    assert lag.report()["most_ms"] == 1000.0
    for _ in range(SPANS - 1):
        at += SPAN_S
        lag._look(planned=at)
    found = lag.report()
    assert (found["most_ms"], found["looks"], found["seconds"]) == (1000.0, SPANS, 290)
    at += SPAN_S
    lag._look(planned=at)
    found = lag.report()
    assert (found["most_ms"], found["looks"], found["seconds"]) == (0.0, SPANS, 290)
    lag.stop()


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    counts = [0] * (len(BOUNDS_MS) + 1)
    counts[3], counts[10], counts[-1] = 980, 19, 1
    assert quantile(counts, 0.5) == BOUNDS_MS[3]
    assert quantile(counts, 0.98) == BOUNDS_MS[3]
    assert quantile(counts, 0.99) == BOUNDS_MS[10]
    assert quantile(counts, 0.999) == BOUNDS_MS[10]
    assert quantile(counts, 1.0) == float("inf")
    assert quantile([0] * len(counts), 0.99) == BOUNDS_MS[0]
