"""Metrics: their names, and datapoints that are folded together as they age.

A value is folded into the datapoint of its second (or minute); what is older than 3 hours is
folded into minutes, than 15 days into 5 minutes, than 63 days into hours, and what is older than
455 days goes: the retention of AWS (CloudWatch's user guide, "Metrics retention"). So a metric
holds a bounded number of rows, however long it is written.

A datapoint keeps its distinct values with their counts, for percentiles. Beyond 256 of them they
are rounded to 1% (three significant digits at first, fewer when that is not enough). A statistic
set of several different values has no values to keep, and so no percentiles: as on AWS.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloche.records import tables as t
from cloche.records.statements import PreparedStatement

HOUR_S, DAY_S = 3600, 86400
# Datapoints of so many seconds are kept so many seconds, then folded into those of the next line.
TIERS = ((1, 3 * HOUR_S), (60, 15 * DAY_S), (300, 63 * DAY_S), (3600, 455 * DAY_S))
DISTINCT_VALUES = 256
FOLD = 1000  # rows of a tier that one change folds at the most, so that others wait little

metric = sa.Table(
    "metric",
    t.metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Text, nullable=False),  # JSON, [[name, value], …] sorted
    sa.Column("last", sa.BigInteger, nullable=False),  # newest datapoint, seconds since 1970
    # A metric is its namespace, name and dimensions: two rows would split its datapoints.
    sa.Index(
        "metric_identity", "account", "region", "namespace", "name", "dimensions", unique=True
    ),
)

datapoint = sa.Table(
    "datapoint",
    t.metadata,
    sa.Column("metric", sa.Integer, primary_key=True),
    sa.Column("period", sa.Integer, primary_key=True),  # seconds that it stands for
    sa.Column("at", sa.BigInteger, primary_key=True),  # its first second, since 1970
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("count", sa.Float, nullable=False),
    sa.Column("total", sa.Float, nullable=False),
    sa.Column("minimum", sa.Float, nullable=False),
    sa.Column("maximum", sa.Float, nullable=False),
    sa.Column("samples", sa.Text),  # JSON, [[value, count], …] sorted; null: not known
    # What grows old is found by its age.
    sa.Index("datapoint_age", "period", "at"),
    sqlite_with_rowid=False,
)

Dimensions = tuple[tuple[str, str], ...]
Samples = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class MetricKey:
    """The identity of a metric within an account and region; `dimensions` are sorted."""

    namespace: str
    name: str
    dimensions: Dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class Datapoint:
    """Values of one metric and unit, folded together; `samples` None: the values are not known."""

    at_s: int
    unit: str
    count: float
    total: float
    minimum: float
    maximum: float
    samples: Samples | None


def combine(points: Sequence[Datapoint]) -> Datapoint:
    """Return datapoints of one unit folded into one, at the time of the first."""
    known = [point.samples for point in points if point.samples is not None]
    return replace(
        points[0],
        count=sum(point.count for point in points),
        total=sum(point.total for point in points),
        minimum=min(point.minimum for point in points),
        maximum=max(point.maximum for point in points),
        samples=merge(chain.from_iterable(known)) if len(known) == len(points) else None,
    )


def of_values(at_s: int, unit: str, values: Samples) -> Datapoint:
    """Return the datapoint of values and how often each occurred."""
    return Datapoint(
        at_s=at_s,
        unit=unit,
        count=sum(count for _, count in values),
        total=sum(value * count for value, count in values),
        minimum=min(value for value, _ in values),
        maximum=max(value for value, _ in values),
        samples=merge(values),
    )


def merge(samples: Iterable[tuple[float, float]]) -> Samples:
    """Return values with their counts, sorted, each once; rounded where there are too many."""
    counts: dict[float, float] = {}
    for value, count in samples:
        counts[value] = counts.get(value, 0.0) + count
    for digits in (3, 2, 1):
        if len(counts) <= DISTINCT_VALUES:
            break
        rounded: dict[float, float] = {}
        for value, count in counts.items():
            near = significant(value, digits)
            rounded[near] = rounded.get(near, 0.0) + count
        counts = rounded
    return tuple(sorted(counts.items()))


def significant(value: float, digits: int) -> float:
    """Return `value` rounded to so many significant digits."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


c = metric.c
KEY = ("account", "region", "namespace", "name", "dimensions")
FIND_METRIC = PreparedStatement(
    sa.select(c.id, c.last).where(*[c[n] == sa.bindparam(n) for n in KEY])
)
ADD_METRIC = PreparedStatement(metric.insert().values({n: sa.bindparam(n) for n in (*KEY, "last")}))
TOUCH_METRIC = PreparedStatement(
    metric.update().where(c.id == sa.bindparam("which")).values(last=sa.bindparam("newest"))
)
PLACE = [datapoint.c[n] == sa.bindparam(n) for n in ("metric", "period", "at", "unit")]
NUMBERS = ("count", "total", "minimum", "maximum", "samples")
POINT = [datapoint.c[n] for n in ("at", "unit", *NUMBERS)]
GET_POINT = PreparedStatement(sa.select(*POINT).where(*PLACE))
ADD_POINT = PreparedStatement(datapoint.insert())
SET_POINT = PreparedStatement(
    datapoint.update().where(*PLACE).values({n: sa.bindparam(f"new_{n}") for n in NUMBERS})
)
DELETE_POINT = PreparedStatement(datapoint.delete().where(*PLACE))
POINTS = PreparedStatement(
    sa.select(*POINT)
    .where(
        datapoint.c.metric == sa.bindparam("metric"),
        datapoint.c.period == sa.bindparam("period"),
        datapoint.c.at >= sa.bindparam("start"),
        datapoint.c.at < sa.bindparam("end"),
    )
    .order_by(datapoint.c.at)
)


def add_in(
    connection: Connection,
    account: str,
    region: str,
    data: Sequence[tuple[MetricKey, int, Datapoint]],
) -> None:
    """Fold datapoints into what is kept, each into the one of its period (1 or 60 s)."""
    known: dict[MetricKey, tuple[int, int]] = {}
    newest: dict[int, int] = {}
    for which, period_s, point in data:
        if which not in known:
            known[which] = metric_id(connection, account, region, which, point.at_s)
        row_id, last_s = known[which]
        if point.at_s > max(last_s, newest.get(row_id, 0)):
            newest[row_id] = point.at_s
        fold_in(connection, row_id, period_s, point)
    for row_id, last_s in newest.items():
        TOUCH_METRIC.run(connection, {"which": row_id, "newest": last_s})


def metric_id(
    connection: Connection, account: str, region: str, which: MetricKey, at_s: int
) -> tuple[int, int]:
    """Return the id of a metric (made when it is new), and when its newest datapoint is from."""
    key = {**identity(account, region, which)}
    row = FIND_METRIC.row(connection, key)
    if row is None:
        ADD_METRIC.run(connection, {**key, "last": at_s})
        row = FIND_METRIC.row(connection, key)
        assert row is not None
    return row[0], row[1]


def identity(account: str, region: str, which: MetricKey) -> dict[str, object]:
    """Return the columns that name a metric."""
    return {
        "account": account,
        "region": region,
        "namespace": which.namespace,
        "name": which.name,
        "dimensions": json.dumps(which.dimensions),
    }


def fold_in(connection: Connection, row_id: int, period_s: int, point: Datapoint) -> None:
    """Add a datapoint to the one that is kept for its period."""
    place = {
        "metric": row_id,
        "period": period_s,
        "at": point.at_s // period_s * period_s,
        "unit": point.unit,
    }
    row = GET_POINT.row(connection, place)
    if row is None:
        ADD_POINT.run(connection, {**place, **numbers(point)})
    else:
        joined = numbers(combine((from_row(row), point)))
        SET_POINT.run(connection, {**place, **{f"new_{n}": v for n, v in joined.items()}})


def numbers(point: Datapoint) -> dict[str, object]:
    """Return the columns that hold a datapoint's values."""
    return {
        "count": point.count,
        "total": point.total,
        "minimum": point.minimum,
        "maximum": point.maximum,
        "samples": None if point.samples is None else json.dumps(point.samples),
    }


def from_row(row: Sequence[Any]) -> Datapoint:
    """Return the datapoint of a row's columns as POINT lists them."""
    at, unit, count, total, minimum, maximum, samples = row
    return Datapoint(
        at_s=at,
        unit=unit,
        count=count,
        total=total,
        minimum=minimum,
        maximum=maximum,
        samples=None if samples is None else tuple((v, n) for v, n in json.loads(samples)),
    )


def points(
    connection: Connection,
    account: str,
    region: str,
    which: MetricKey,
    *,
    start_s: int,
    end_s: int,
    period_s: int,
) -> list[Datapoint]:
    """Return a metric's datapoints of `period_s` in [start, end), one a unit, oldest first.

    `start_s` is where the first period begins. What is kept only in longer periods than asked
    for is left out.
    """
    row = FIND_METRIC.row(connection, identity(account, region, which))
    if row is None:
        return []
    found: dict[tuple[int, str], list[Datapoint]] = {}
    for kept_s, _ in TIERS:
        if period_s % kept_s:
            continue
        values = {"metric": row[0], "period": kept_s, "start": start_s, "end": end_s}
        for point in map(from_row, POINTS.rows(connection, values)):
            begin = start_s + (point.at_s - start_s) // period_s * period_s
            found.setdefault((begin, point.unit), []).append(replace(point, at_s=begin))
    return [combine(found[place]) for place in sorted(found)]


def named(
    connection: Connection,
    account: str,
    region: str,
    *,
    namespace: str | None,
    name: str | None,
    since_s: int,
    after: int,
    limit: int,
) -> list[tuple[int, MetricKey]]:
    """Return metrics with data since then, with their ids, in the order they were first seen."""
    query = (
        sa.select(c.id, c.namespace, c.name, c.dimensions)
        .where(c.account == account, c.region == region, c.last >= since_s, c.id > after)
        .order_by(c.id)
        .limit(limit)
    )
    if namespace is not None:
        query = query.where(c.namespace == namespace)
    if name is not None:
        query = query.where(c.name == name)
    return [
        (row.id, MetricKey(row.namespace, row.name, tuple((k, v) for k, v in json.loads(row[3]))))
        for row in connection.execute(query)
    ]


def age_in(connection: Connection, now_s: int) -> int:
    """Fold what has grown old into longer periods, drop what is too old; return the rows seen.

    Each tier has a budget of its own, FOLD: none waits because another has much to do. While some
    tier used all of it there may be more: FOLD or more are returned then.
    """
    d = datapoint.c
    seen = most = 0
    for (period_s, kept_s), longer in zip(TIERS, [*TIERS[1:], None], strict=True):
        query = (
            sa.select(d.metric, *POINT)
            .where(d.period == period_s, d.at < now_s - kept_s)
            .order_by(d.at)
            .limit(FOLD)
        )
        rows = connection.execute(query).fetchall()
        for row in rows:
            if longer is not None:
                fold_in(connection, row.metric, longer[0], from_row(row[1:]))
            place = {"metric": row.metric, "period": period_s, "at": row.at, "unit": row.unit}
            DELETE_POINT.run(connection, place)
        seen, most = seen + len(rows), max(most, len(rows))
        if longer is None and rows:
            connection.execute(metric.delete().where(c.last < now_s - kept_s))
    return seen if most == FOLD else min(seen, FOLD - 1)
