"""What other services write metrics with, and the one place that reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloche.core.clock import from_ms
from cloche.records import metrics as kept
from cloche.records.metrics import Datapoint, MetricKey
from cloche.records.store import Store

AGE_EVERY = timedelta(minutes=1)
MOST_FOLDS = 8  # changes that one writer makes to fold what is old


@dataclass(frozen=True, slots=True)
class Datum:
    """One value of a metric at a time; `resolution_s`: how finely time is kept, 1 or 60."""

    name: str
    dimensions: Mapping[str, str]
    at: datetime
    value: float
    unit: str = "None"
    resolution_s: int = 1


class CloudWatch:
    """Keeps metrics: each value once, folded together as it ages (`records.metrics`)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.aged: datetime | None = None
        self.owed = 0  # datapoints written since, each of which will grow old

    async def put(self, account: str, region: str, namespace: str, data: Sequence[Datum]) -> None:
        """Write values, durably, in one change."""
        grouped: dict[tuple[MetricKey, int, int, str], list[tuple[float, float]]] = {}
        for datum in data:
            which = metric(namespace, datum.name, datum.dimensions)
            key = (which, datum.resolution_s, int(datum.at.timestamp()), datum.unit)
            grouped.setdefault(key, []).append((datum.value, 1.0))
        await self.add(
            account,
            region,
            [
                (which, resolution_s, kept.of_values(at_s, unit, tuple(values)))
                for (which, resolution_s, at_s, unit), values in grouped.items()
            ],
        )

    async def add(
        self, account: str, region: str, data: Sequence[tuple[MetricKey, int, Datapoint]]
    ) -> None:
        """Write datapoints with the period (1 or 60 s) that they are kept for, durably."""
        if data:
            await self.store.write(lambda c: kept.add_in(c, account, region, data))
            self.owed += len(data)
        now = self.store.clock.now()
        if self.aged is None or now - self.aged >= AGE_EVERY or self.owed >= kept.FOLD:
            self.aged = now
            await self._age(int(now.timestamp()))

    async def _age(self, now_s: int) -> None:
        """Fold what is old: at least twice as much as was written, if there is so much."""
        for _ in range(MOST_FOLDS):
            seen = await self.store.write(lambda c: kept.age_in(c, now_s))
            self.owed = max(0, self.owed - kept.FOLD // 2)
            if seen < kept.FOLD:
                self.owed = 0
            if not self.owed:
                break

    def points(
        self,
        account: str,
        region: str,
        which: MetricKey,
        *,
        start: datetime,
        end: datetime,
        period_s: int,
        now: datetime,
    ) -> list[Datapoint]:
        """Return datapoints of `period_s` from `start` (rounded down) to before `end`, by unit."""
        return kept.points(
            self.store.read(),
            account,
            region,
            which,
            start_s=rounded_start(start, period_s, now),
            end_s=int(-(-end.timestamp() // 1)),
            period_s=period_s,
        )

    def named(
        self,
        account: str,
        region: str,
        *,
        namespace: str | None,
        name: str | None,
        since: datetime,
        after: int,
        limit: int,
    ) -> list[tuple[int, MetricKey]]:
        """Return metrics that have data since then, with their ids, after an id."""
        return kept.named(
            self.store.read(),
            account,
            region,
            namespace=namespace,
            name=name,
            since_s=int(since.timestamp()),
            after=after,
            limit=limit,
        )


def metric(namespace: str, name: str, dimensions: Mapping[str, str]) -> MetricKey:
    """Return a metric's identity; the order of dimensions does not matter."""
    return MetricKey(namespace, name, tuple(sorted(dimensions.items())))


def rounded_start(start: datetime, period_s: int, now: datetime) -> int:
    """Return where the first period begins, in seconds since 1970.

    Rounded down to a minute, 15 days back to 5 minutes, 63 days back to an hour; for a period
    below a minute to a multiple of it (API reference of GetMetricStatistics, StartTime).
    """
    age = now - start
    if age > timedelta(days=63):
        grid_s = 3600
    elif age > timedelta(days=15):
        grid_s = 300
    else:
        grid_s = min(60, period_s)
    return int(start.timestamp()) // grid_s * grid_s


def percentile(point: Datapoint, percent: float) -> float | None:
    """Return the value below which `percent` of the values lie; None: they are not known.

    Between two values it is interpolated. A datapoint without values has percentiles only where
    all of them are equal.
    """
    if point.samples is None:
        single = point.count == 1 or point.minimum == point.maximum
        return point.minimum if single else None
    rank = percent / 100 * (point.count - 1)
    seen, before = 0.0, point.samples[0][0]
    for value, count in point.samples:
        if rank < seen:
            return before + (value - before) * (rank - (seen - 1))
        seen += count
        if rank <= seen - 1:
            return value
        before = value
    return before


def moment(at_s: int) -> datetime:
    """Return the time of a datapoint."""
    return from_ms(at_s * 1000)
