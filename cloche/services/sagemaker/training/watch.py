"""What a running job shows: metrics that its log states, and what its hosts use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cloche.core.clock import from_ms
from cloche.engine import Usage
from cloche.patterns import Exceeded, Searches
from cloche.services.cloudwatch import Datum
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.record import LastValue, Progress

if TYPE_CHECKING:
    from cloche.services.logs import LogRecord

NAMESPACE = "/aws/sagemaker/TrainingJobs"
LONGEST_CURVE = 10_000  # values of an objective that a tuning job looks at


@dataclass(frozen=True, slots=True)
class Found:
    """A value that a line of the log gives for a metric."""

    name: str
    value: float
    at_ms: int


def searches(algorithm: Request, off: Iterable[int] = ()) -> Searches | None:
    """Return the expressions of the metric definitions, but for those that are `off`, by number.

    None: there is nothing to search for.
    """
    patterns = [each["Regex"] for each in algorithm.get("MetricDefinitions", ())]
    left_out = set(off)
    return Searches(patterns, left_out) if len(left_out) < len(patterns) else None


def find_metrics(
    records: Sequence[LogRecord], names: Sequence[str], wanted: Searches
) -> list[Found]:
    """Return what the lines give: the first group of every match that is a number.

    An expression that takes too long is off from then on: `wanted.off` says why. Blocks: it is
    run by `cloche.patterns.run`.
    """
    texts = [record.text for record in records]
    found: list[tuple[int, Found]] = []
    for number, name in enumerate(names):
        if number in wanted.off:
            continue
        try:
            values = wanted.numbers(number, texts)
        except Exceeded:
            continue
        found += [(place, Found(name, value, records[place].at_ms)) for place, value in values]
    found.sort(key=lambda each: each[0])
    return [one for _, one in found]


def with_metrics(
    progress: Progress, found: Iterable[Found], read: Mapping[str, int], objective: str | None
) -> Progress:
    """Return progress with the last value of each metric and how far the logs were read.

    The values of `objective` are kept: a tuning job's rules look at the curve.
    """
    metrics, curve = dict(progress.metrics), list(progress.curve)
    for one in found:
        if one.name == objective and len(curve) < LONGEST_CURVE:
            curve.append(one.value)
        if one.name not in metrics or metrics[one.name].at_ms <= one.at_ms:
            metrics[one.name] = LastValue(value=one.value, at_ms=one.at_ms)
    return progress.replace(metrics=metrics, read={**progress.read, **read}, curve=tuple(curve))


def metric_data(job: str, found: Iterable[Found]) -> list[Datum]:
    """Return metrics of the script as CloudWatch keeps them."""
    return [
        Datum(one.name, {"TrainingJobName": job}, from_ms(one.at_ms), one.value) for one in found
    ]


@dataclass(frozen=True, slots=True)
class UsageSample:
    """What the hosts had used at one time."""

    at: datetime
    usage: Mapping[str, Usage]


def usage_data(
    job: str, before: UsageSample, now: UsageSample, memory_mib: Mapping[str, float]
) -> list[Datum]:
    """Return what was used between two samples.

    CPUUtilization: percent of one core (two busy cores give 200); MemoryUtilization: percent of
    what `memory_mib` says the host has. Dimension Host is `JOB/algo-1` ("Monitor SageMaker with
    CloudWatch").
    """
    seconds = (now.at - before.at).total_seconds()
    data: list[Datum] = []
    for host, usage in now.usage.items():
        dimensions = {"Host": f"{job}/{host}"}
        earlier = before.usage.get(host)
        if earlier is not None and seconds > 0:
            percent = max(0.0, usage.cpu_s - earlier.cpu_s) / seconds * 100
            data.append(Datum("CPUUtilization", dimensions, now.at, percent, "Percent"))
        data.append(
            Datum(
                "MemoryUtilization",
                dimensions,
                now.at,
                100 * usage.memory_mib / memory_mib[host],
                "Percent",
            )
        )
    return data
