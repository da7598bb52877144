"""Percentiles and the rounding of start times."""

from datetime import UTC, datetime, timedelta

import pytest

from cloche.records.metrics import Datapoint, of_values
from cloche.services.cloudwatch.metrics import percentile, rounded_start

NOW = datetime(2021, 11, 28, 17, 26, 33, tzinfo=UTC)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (50, 3.0), (75, 4.0), (90, 4.6), (100, 5.0)]
)
def test_percentiles_of_five_values(percent: float, expected: float) -> None:
    point = of_values(0, "None", tuple((float(n), 1.0) for n in range(1, 6)))
    assert percentile(point, percent) == pytest.approx(expected)


def test_values_that_occur_often_weigh_more() -> None:
    point = of_values(0, "None", ((1.0, 98.0), (7.0, 1.0), (9.0, 1.0)))
    assert percentile(point, 50) == 1.0
    assert percentile(point, 97) == 1.0
    assert percentile(point, 100) == 9.0
    assert percentile(point, 99) == pytest.approx(7.02)


def test_without_values_only_where_all_are_equal() -> None:
    def set_of(count: float, low: float, high: float) -> Datapoint:
        return Datapoint(
            at_s=0, unit="None", count=count, total=0, minimum=low, maximum=high, samples=None
        )

    assert percentile(set_of(5, 1, 2), 99) is None
    assert percentile(set_of(5, 2, 2), 99) == 2


@pytest.mark.parametrize(
    ("age", "period_s", "grid_s"),
    [
        (timedelta(hours=1), 1, 1),
        (timedelta(hours=1), 10, 10),
        (timedelta(hours=1), 300, 60),
        (timedelta(days=20), 60, 300),
        (timedelta(days=70), 3600, 3600),
    ],
)
def test_start_times_are_rounded_down(age: timedelta, period_s: int, grid_s: int) -> None:
    start = NOW - age
    rounded = rounded_start(start, period_s, NOW)
    assert rounded % grid_s == 0 and 0 <= start.timestamp() - rounded < grid_s
