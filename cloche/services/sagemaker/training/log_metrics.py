"""What a running job's log says of its metrics: read on from where it was read before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloche import patterns
from cloche.core import executors, log_lines
from cloche.core.clock import Clock, to_ms
from cloche.patterns import Searches
from cloche.services.sagemaker.training.record import OBJECTIVE, Progress, TrainingJob
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
    from cloche.services.logs import LogRecord
    from cloche.services.sagemaker import SageMaker

BATCH = 1000  # lines that are searched at once
MOST_READS = 16  # of a megabyte each, of one host's log at one look


@dataclass
class Harvest:
    """Reads one job's logs. After a restart it begins where the record says they were read to.

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

    async def look(
        self, job: TrainingJob, logs: Mapping[str, Path], sagemaker: SageMaker, *, whole: bool
    ) -> Progress:
        """Read new lines, put their metrics to CloudWatch; return progress (the same: no news).

        The values are put before it is written that they were read: a server that dies in between
        puts the same values at the same times once more. `whole`: up to the end, however long.
        """
        progress = job.progress
        if self.wanted is None:
            self.wanted = searches(job.request["AlgorithmSpecification"], progress.unsearched)
        if self.wanted is None:
            return progress
        if self.told is not None and self.told.items() <= progress.read.items():
            self.found, self.told = [], None
        before = set(self.wanted.off)
        for host, log in logs.items():
            end, reads = max(self.read.get(host, 0), progress.read.get(host, 0)), 0
            while whole or reads < MOST_READS:
                records, end = await executors.LOGS.run(
                    sagemaker.logs.read_lines, log, end, whole=whole
                )
                if not records:
                    break
                await self._search(job, records, sagemaker)
                self.read[host], reads = end, reads + 1
        off = self.wanted.off
        if news := sorted(off - before):
            log, clock = next(iter(logs.values())), sagemaker.store.clock
            await executors.LOGS.run(say_what_is_not_read, log, job, self.wanted, news, clock)
        if not self.found and off == set(progress.unsearched):
            return progress
        self.told = dict(self.read)
        progress = with_metrics(progress, self.found, self.read, objective_of(job))
        return progress.replace(unsearched=tuple(sorted(off)))

    async def _search(
        self, job: TrainingJob, records: Sequence[LogRecord], sagemaker: SageMaker
    ) -> None:
        assert self.wanted is not None
        r = job.resource
        names = [
            each["Name"] for each in job.request["AlgorithmSpecification"]["MetricDefinitions"]
        ]
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            found = await patterns.run(find_metrics, batch, names, self.wanted)
            if found:
                data = metric_data(r.name, found)
                await sagemaker.put_metrics(r, job.request["RoleArn"], NAMESPACE, data)
                self.found = newest([*self.found, *found], objective_of(job))


def objective_of(job: TrainingJob) -> str | None:
    """Return the metric that a tuning job looks at, if one started this job."""
    objective: str | None = job.request.get("HyperParameters", {}).get(OBJECTIVE)
    return objective


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


def say_what_is_not_read(
    log: Path, job: TrainingJob, wanted: Searches, numbers: Iterable[int], clock: Clock
) -> None:
    """Say in a log, which the engine appends to as well, what is not read from there on."""
    definitions = job.request["AlgorithmSpecification"]["MetricDefinitions"]
    texts = (
        f"Cloche: the metric {definitions[number]['Name']} is no longer read: its regular "
        f"expression {definitions[number]['Regex']!r} {wanted.why[number]}."
        for number in numbers
    )
    now_ms = to_ms(clock.now())
    log_lines.append(log, [(now_ms, text) for text in texts])
