"""What a tuning job needs next. Pure: reads no clock, database or process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cloche.services.sagemaker.tuning.early_stopping import hyperband_stops, stops_early
from cloche.services.sagemaker.tuning.strategies import Trial

REASON_LIMIT = 1024  # characters of FailureReason
ATTEMPTS = 5  # so many failures and no success end a search
NO_SUCCESS = (
    "No training job succeeded after 5 attempts. "
    "Please take a look at the training job failures to get more details."
)
ALL_FAILED = (
    "All training jobs failed. Please take a look at the training job failures to get more details."
)
NO_OBJECTIVE = (
    "No objective metrics found after running {count} training jobs. Please ensure that the custom "
    "algorithm is emitting the objective metric as defined by the regular expression provided. "
    "No line of their logs gave a value of {metrics}."
)
SOME_SILENT = (
    "{reason} {count} of them completed, but no line of their logs gave a value of {metrics}."
)
IMPROVED = 0.01  # less than this part of the best value is no improvement (AWS: "1% or less")
CONVERGED_AFTER = 10  # training jobs in a row that did not improve: the search has converged


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """What bounds a search, of `HyperParameterTuningJobConfig`.

    hyperband: (MinResource, MaxResource).
    """

    max_jobs: int
    max_parallel: int
    max_runtime_s: int | None = None
    early_stopping: bool = False
    hyperband: tuple[int, int] | None = None
    target: float | None = None
    not_improving: int | None = None
    convergence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a search stands.

    trials: all of it, in order; `stopping`: numbers of those that were told to stop.
    minimize and groups: by trial number, since definitions differ. silent: those that completed
    and said nothing about the objective, each with what was looked for.
    """

    rules: SearchLimits
    trials: Sequence[Trial]
    minimize: Mapping[int, bool]
    groups: Mapping[int, str]
    silent: Mapping[int, str] = field(default_factory=dict)
    stopping: frozenset[int] = frozenset()
    stop_requested: bool = False
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """What to do: trials to stop early, how many new ones to start, how the search ends.

    ending: decided now; it takes effect when no trial runs any more. converged: that is why.
    """

    stop: tuple[int, ...] = ()
    start: int = 0
    ending: Literal["Completed", "Failed", "Stopped"] | None = None
    reason: str | None = None
    converged: bool = False


def rules_of(config: Mapping[str, Any]) -> SearchLimits:
    """Return the rules of a validated `HyperParameterTuningJobConfig`."""
    limits = config.get("ResourceLimits", {})
    criteria = config.get("TuningJobCompletionCriteria") or {}
    strategy = (config.get("StrategyConfig") or {}).get("HyperbandStrategyConfig")
    resources = (strategy["MinResource"], strategy["MaxResource"]) if strategy else None
    convergence = criteria.get("ConvergenceDetected", {}).get("CompleteOnConvergence")
    return SearchLimits(
        max_jobs=limits["MaxNumberOfTrainingJobs"],
        max_parallel=limits["MaxParallelTrainingJobs"],
        max_runtime_s=limits.get("MaxRuntimeInSeconds"),
        early_stopping=config.get("TrainingJobEarlyStoppingType") == "Auto",
        hyperband=resources if config["Strategy"] == "Hyperband" else None,
        target=criteria.get("TargetObjectiveMetricValue"),
        not_improving=criteria.get("BestObjectiveNotImproving", {}).get(
            "MaxNumberOfTrainingJobsNotImproving"
        ),
        convergence=convergence == "Enabled",
    )


def decide(now: Situation) -> TuningPlan:
    """Return what to do next."""
    running = [trial for trial in now.trials if trial.state == "running"]
    untold = tuple(trial.number for trial in running if trial.number not in now.stopping)
    if now.stop_requested:
        return TuningPlan(stop=untold, ending="Stopped")
    ended = ending(now, running)
    if ended is not None:
        return TuningPlan(
            stop=untold, ending=ended.ending, reason=ended.reason, converged=ended.converged
        )
    stop = tuple(
        trial.number
        for trial in running
        if trial.number not in now.stopping and worthless(trial, now)
    )
    places = now.rules.max_parallel - len(running)
    left = now.rules.max_jobs - len(now.trials)
    return TuningPlan(stop=stop, start=max(0, min(places, left)))


def ending(now: Situation, running: Sequence[Trial]) -> TuningPlan | None:
    """Return how the search ends, if it is over (trials that still run are stopped then)."""
    rules = now.rules
    failed = [trial for trial in now.trials if trial.state == "failed"]
    done = [trial for trial in now.trials if trial.state in ("completed", "stopped")]
    if len(failed) >= ATTEMPTS and not done:
        return TuningPlan(ending="Failed", reason=why_none(now, failed, NO_SUCCESS))
    if any(reached(trial, now) for trial in now.trials):
        return TuningPlan(ending="Completed")
    if rules.max_runtime_s is not None and now.age_s >= rules.max_runtime_s:
        return TuningPlan(ending="Completed")
    stagnant = not_improving(now)
    if rules.not_improving is not None and stagnant >= rules.not_improving:
        return TuningPlan(ending="Completed")
    if rules.convergence and stagnant >= CONVERGED_AFTER:
        return TuningPlan(ending="Completed", converged=True)
    if running or len(now.trials) < rules.max_jobs:
        return None
    if not done:
        return TuningPlan(ending="Failed", reason=why_none(now, failed, ALL_FAILED))
    return TuningPlan(ending="Completed")


def why_none(now: Situation, failed: Sequence[Trial], reason: str) -> str:
    """Return why no trial of a search is of use: they failed, or said nothing, or some of each."""
    silent = [now.silent[trial.number] for trial in failed if trial.number in now.silent]
    if not silent:
        return reason
    text = NO_OBJECTIVE if len(silent) == len(failed) else SOME_SILENT
    metrics = "; ".join(dict.fromkeys(silent))
    return text.format(reason=reason, count=len(silent), metrics=metrics)[:REASON_LIMIT]


def reached(trial: Trial, now: Situation) -> bool:
    """Return whether a trial that ended has reached `TargetObjectiveMetricValue`."""
    target = now.rules.target
    if target is None or trial.objective is None or trial.state not in ("completed", "stopped"):
        return False
    minimize = now.minimize[trial.number]
    return trial.objective <= target if minimize else trial.objective >= target


def worthless(trial: Trial, now: Situation) -> bool:
    """Return whether a running trial is to be stopped at the epoch it has reached."""
    minimize = now.minimize[trial.number]
    peers = [t for t in now.trials if now.groups[t.number] == now.groups[trial.number]]
    if now.rules.hyperband is not None:
        least, most = now.rules.hyperband
        return hyperband_stops(
            trial, peers, minimize=minimize, min_resource=least, max_resource=most
        )
    return now.rules.early_stopping and stops_early(trial, peers, minimize=minimize)


def not_improving(now: Situation) -> int:
    """Return how many training jobs have ended since the best objective improved by over 1%.

    `NumberOfTrainingJobsObjectiveNotImproving` of DescribeHyperParameterTuningJob.
    """
    best: float | None = None
    count = 0
    for trial in now.trials:
        if trial.state == "running" or trial.objective is None:
            continue
        sign = 1.0 if now.minimize[trial.number] else -1.0
        value = sign * trial.objective
        if best is None or value < best - IMPROVED * abs(best):
            best, count = value, 0
        else:
            count += 1
    return count
