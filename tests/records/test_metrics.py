"""Metrics in the database: folded together, aged, bounded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloche.records import metrics as m
from cloche.records.store import Store

ACCOUNT, REGION = "123456789012", "us-east-1"
LOSS = m.MetricKey("training", "loss", (("TrainingJobName", "a"),))
HOUR, DAY = 3600, 86400
START = 1000 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "cloche.db")
    yield store
    store.close()


def add(
    store: Store, at_s: int, value: float, period_s: int = 1, which: m.MetricKey = LOSS
) -> None:
    point = m.of_values(at_s, "None", ((value, 1.0),))
    store.write_now(lambda c: m.add_in(c, ACCOUNT, REGION, [(which, period_s, point)]))


def read(store: Store, start_s: int, end_s: int, period_s: int) -> list[m.Datapoint]:
    return m.points(
        store.read(), ACCOUNT, REGION, LOSS, start_s=start_s, end_s=end_s, period_s=period_s
    )


def test_values_of_one_second_are_one_row(store: Store) -> None:
    for value in (3.0, 1.0, 2.0, 1.0):
        add(store, START, value)
    (point,) = read(store, START, START + 60, 60)
    assert (point.count, point.total, point.minimum, point.maximum) == (4.0, 7.0, 1.0, 3.0)
    assert point.samples == ((1.0, 2.0), (2.0, 1.0), (3.0, 1.0))
    assert rows(store) == {1: 1}


def test_periods_begin_at_the_start(store: Store) -> None:
    for second in range(0, 300, 10):
        add(store, START + second, float(second))
    found = read(store, START + 60, START + 300, 120)
    assert [(point.at_s - START, point.count) for point in found] == [(60, 12.0), (180, 12.0)]
    assert [point.minimum for point in found] == [60.0, 180.0]


def test_units_are_apart(store: Store) -> None:
    for unit in ("Seconds", "Count"):
        point = m.of_values(START, unit, ((1.0, 1.0),))
        store.write_now(lambda c, p=point: m.add_in(c, ACCOUNT, REGION, [(LOSS, 1, p)]))  # type: ignore[misc]
    assert [point.unit for point in read(store, START, START + 1, 1)] == ["Count", "Seconds"]


def test_what_is_old_is_folded_and_at_last_dropped(store: Store) -> None:
    for second in range(600):
        add(store, START + second, float(second))
    expected = read(store, START, START + 600, 300)
    for age_s, periods in (
        (1 * HOUR, {1: 600}),
        (4 * HOUR, {60: 10}),
        (16 * DAY, {300: 2}),
        (64 * DAY, {3600: 1}),
        (456 * DAY, {}),
    ):
        now_s = START + age_s
        while store.write_now(lambda c, n=now_s: m.age_in(c, n)) >= m.FOLD:  # type: ignore[misc]
            pass
        assert rows(store) == periods
        if 300 in periods or 60 in periods:
            assert read(store, START, START + 600, 300) == expected
        if periods == {3600: 1}:
            assert read(store, START, START + 600, 300) == []  # kept only in longer periods
            (hour,) = read(store, START, START + HOUR, HOUR)
            assert (hour.count, hour.minimum, hour.maximum) == (600.0, 0.0, 599.0)
    assert store.read().execute(sa.select(m.metric)).fetchall() == []


def test_ageing_does_a_bounded_amount_of_work(store: Store) -> None:
    data = [
        (LOSS, 1, m.of_values(START + second, "None", ((1.0, 1.0),)))
        for second in range(m.FOLD + 10)
    ]
    store.write_now(lambda c: m.add_in(c, ACCOUNT, REGION, data))
    done = [store.write_now(lambda c: m.age_in(c, START + DAY)) for _ in range(2)]
    assert done == [m.FOLD, 10]


def test_many_values_keep_few_samples() -> None:
    values = tuple((1000 + n / 7, 1.0) for n in range(5000))
    point = m.of_values(START, "None", values)
    assert point.samples is not None and len(point.samples) <= m.DISTINCT_VALUES
    assert sum(count for _, count in point.samples) == 5000
    assert point.minimum == 1000 and point.count == 5000


def test_a_statistic_set_has_no_samples(store: Store) -> None:
    known = m.of_values(START, "None", ((1.0, 1.0),))
    sets = m.Datapoint(
        at_s=START, unit="None", count=2, total=5, minimum=1, maximum=4, samples=None
    )
    joined = m.combine([known, sets])
    assert (joined.count, joined.total, joined.maximum, joined.samples) == (3.0, 6.0, 4, None)


def rows(store: Store) -> dict[int, int]:
    query = sa.select(m.datapoint.c.period, sa.func.count()).group_by(m.datapoint.c.period)
    return {row[0]: row[1] for row in store.read().execute(query)}
