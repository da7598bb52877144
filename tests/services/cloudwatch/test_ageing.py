"""Metrics take a bounded number of rows, however much is written: a week of many series."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloche.core.clock import ManualClock
from cloche.records import metrics as kept
from cloche.records.store import Store
from cloche.services.cloudwatch import CloudWatch, Datum

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_S, DAY_S = 3600, 86400
TIERS = ((1, 3 * HOUR_S), (60, 2 * DAY_S), (300, 4 * DAY_S), (3600, 6 * DAY_S))
SERIES, EVERY_S = 4, 180


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "cloche.db", ManualClock(START))
    yield made
    made.close()


async def test_a_week_of_many_series_keeps_what_its_tiers_keep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is written in an hour than one change folds; no tier is starved by a shorter one."""
    monkeypatch.setattr(kept, "FOLD", 50)
    monkeypatch.setattr(kept, "TIERS", TIERS)
    clock = store.clock
    assert isinstance(clock, ManualClock)
    cloudwatch = CloudWatch(store)
    for _ in range(0, 7 * 24, 4):
        now = clock.now()
        data = [
            Datum(f"m{series}", {}, now - timedelta(seconds=second), 1.0)
            for series in range(SERIES)
            for second in range(0, 4 * HOUR_S, EVERY_S)
        ]
        await cloudwatch.put("1", "r", "n", data)
        clock.advance(4 * HOUR_S)
    d = kept.datapoint.c
    rows = dict(store.read().execute(sa.select(d.period, sa.func.count()).group_by(d.period)).all())
    oldest = dict(
        store.read().execute(sa.select(d.period, sa.func.min(d.at)).group_by(d.period)).all()
    )
    now_s = clock.now().timestamp()
    slack_s, before_s = 5 * HOUR_S, 0
    for period_s, kept_s in TIERS:
        assert now_s - oldest[period_s] <= kept_s + slack_s + period_s, period_s
        span_s = kept_s + slack_s - before_s
        assert rows[period_s] <= SERIES * span_s / max(period_s, EVERY_S) + SERIES, period_s
        before_s = kept_s
    total = sum(row[0] for row in store.read().execute(sa.select(sa.func.sum(d.count))).all())
    assert total >= SERIES * 6 * DAY_S / EVERY_S * 0.95, "what is kept was not lost"
