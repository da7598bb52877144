"""A tuning job's record as the pure rules see it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cloche.services.sagemaker.tuning.decide import Situation, rules_of
from cloche.services.sagemaker.tuning.record import TuningJob, TuningJobStatus
from cloche.services.sagemaker.tuning.space import SearchSpace
from cloche.services.sagemaker.tuning.strategies import STRATEGIES, SearchHistory, Trial
from cloche.services.sagemaker.tuning.trials import ObservedTrial


def situation(job: TuningJob, seen: Sequence[ObservedTrial], now: datetime) -> Situation:
    """Return where a search stands. A trial that is stopping still runs."""
    return Situation(
        rules=rules_of(job.config),
        trials=[each.trial() for each in seen],
        minimize={s.record.number: minimizes(job, s.record.definition) for s in seen},
        groups={each.record.number: each.record.definition for each in seen},
        silent={
            each.record.number: looked_for(job, each.record.definition)
            for each in seen
            if each.outcome.status == "Completed" and each.outcome.objective is None
        },
        stopping=frozenset(
            each.record.number
            for each in seen
            if each.record.early or each.outcome.status == "Stopping"
        ),
        stop_requested=job.status is TuningJobStatus.STOPPING,
        age_s=(now - job.resource.created).total_seconds(),
    )


def looked_for(job: TuningJob, definition: str) -> str:
    """Return the objective of a definition with the expression that finds it, for a reader."""
    name = job.objective(definition)["MetricName"]
    metrics = job.definitions[definition]["AlgorithmSpecification"]["MetricDefinitions"]
    regex = next(metric["Regex"] for metric in metrics if metric["Name"] == name)
    return f"the metric {name} (regular expression: {regex})"


def minimizes(job: TuningJob, definition: str) -> bool:
    """Return whether a definition's objective is to be as small as possible."""
    minimize: bool = job.objective(definition)["Type"] == "Minimize"
    return minimize


def propose(
    job: TuningJob, trials: Sequence[tuple[str, Trial]], parents: Sequence[Trial]
) -> tuple[str, dict[str, str]] | None:
    """Return the definition and the hyperparameters of the next trial; None: nothing is left.

    trials: with the definition of each. Definitions take turns.
    """
    names = list(job.definitions)
    first = len(trials) % len(names)
    for name in names[first:] + names[:first]:
        search = SearchHistory(
            space=SearchSpace.parse(job.ranges(name)),
            minimize=minimizes(job, name),
            seed=job.seed + names.index(name),
            trials=[trial for definition, trial in trials if definition == name],
            parents=parents,
        )
        chosen = STRATEGIES[job.config["Strategy"]](search)
        if chosen is not None:
            return name, dict(chosen)
    return None
