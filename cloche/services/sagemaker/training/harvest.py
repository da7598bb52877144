"""What a running job's log says of its metrics: read on from where it was read before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloche import patterns
from cloche.core.clock import Clock, to_ms
from cloche.patterns import Searches
from cloche.services.sagemaker.records import Progress, TrainingJob
from cloche.services.sagemaker.records_tuning import OBJECTIVE
from cloche.services.sagemaker.training.watch import (
    LONGEST_CURVE,
    NAMESPACE,
    Found,
    find_metrics,
    metric_data,
    searches,
    with_metrics,
)

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

BATCH = 1000  # lines that are searched at once
MOST_READS = 16  # of a megabyte each, of one host's log at one look


@dataclass(slots=True)
class Reading:
    """How far a job's logs were read, and what was found that its record may not have yet.

    Whoever else writes the record makes the loop's own write fail: what was found is told again,
    until a record shows that it was written.
    """

    read: dict[str, int] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    told: dict[str, int] | None = None  # `read` as a record has it that was written with `found`
    wanted: Searches | None = None

    def close(self) -> None:
        """Let go of what searches."""
        if self.wanted is not None:
            self.wanted.close()


async def harvest(
    job: TrainingJob,
    logs: Mapping[str, Path],
    reading: Reading,
    sagemaker: SageMaker,
    *,
    whole: bool,
) -> Progress:
    """Read new lines, put their metrics to CloudWatch; return progress (the same: no news).

    The values are put before it is written that they were read: a server that dies in between
    puts the same values at the same times once more. `whole`: up to the end, however long it is.
    """
    algorithm, progress = job.request["AlgorithmSpecification"], job.progress
    if reading.wanted is None:
        reading.wanted = searches(algorithm, progress.unsearched)
        if reading.wanted is None:
            return progress
    if reading.told is not None and reading.told.items() <= progress.read.items():
        reading.found, reading.told = [], None
    names = [each["Name"] for each in algorithm["MetricDefinitions"]]
    objective = job.request.get("HyperParameters", {}).get(OBJECTIVE)
    before = set(reading.wanted.off)
    for host, log in logs.items():
        end, reads = max(reading.read.get(host, 0), progress.read.get(host, 0)), 0
        while whole or reads < MOST_READS:
            records, end = await asyncio.to_thread(sagemaker.logs.read_from, log, end)
            if not records:
                break
            for start in range(0, len(records), BATCH):
                batch = records[start : start + BATCH]
                found = await patterns.run(find_metrics, batch, names, reading.wanted)
                await put(job, found, sagemaker)
                reading.found = newest([*reading.found, *found], objective)
            reading.read[host], reads = end, reads + 1
    if news := sorted(reading.wanted.off - before):
        await asyncio.to_thread(
            tell, next(iter(logs.values())), job, reading.wanted, news, sagemaker.store.clock
        )
    off = tuple(sorted(reading.wanted.off))
    if not reading.found and off == progress.unsearched:
        return progress
    reading.told = dict(reading.read)
    progress = with_metrics(progress, reading.found, reading.read, objective)
    return replace(progress, unsearched=off)


def newest(found: Iterable[Found], objective: str | None) -> list[Found]:
    """Return what a record needs: the last value of each metric, and the objective's all."""
    kept: list[Found] = []
    last: dict[str, Found] = {}
    for one in found:
        if one.name == objective and len(kept) < LONGEST_CURVE:
            kept.append(one)
        elif one.name not in last or last[one.name].at_ms <= one.at_ms:
            last[one.name] = one
    return [*kept, *last.values()]


async def put(job: TrainingJob, found: list[Found], sagemaker: SageMaker) -> None:
    """Put values to CloudWatch."""
    if found:
        r = job.resource
        data = metric_data(r.name, found)
        await sagemaker.cloudwatch.put(r.account, r.region, NAMESPACE, data)


def tell(
    log: Path, job: TrainingJob, wanted: Searches, numbers: Iterable[int], clock: Clock
) -> None:
    """Say in a log, which the engine appends to as well, what is not read from there on."""
    definitions = job.request["AlgorithmSpecification"]["MetricDefinitions"]
    text = "".join(
        f"{to_ms(clock.now())} Cloche: the metric {definitions[number]['Name']} is not read any "
        f"more: its regular expression {definitions[number]['Regex']!r} {wanted.why[number]}.\n"
        for number in numbers
    )
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
