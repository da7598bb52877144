"""Trials as records tell them: their training jobs, their outcomes, the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloche.records.store import Resource, Store
from cloche.services.sagemaker.names import arn, moment
from cloche.services.sagemaker.training.record import TRAINING_JOB, training_job
from cloche.services.sagemaker.training.status import ENDED
from cloche.services.sagemaker.tuning.record import SINGLE, Outcome, TrialRecord, TuningJob
from cloche.services.sagemaker.tuning.strategies import Trial

STATES = {"Completed": "completed", "Stopped": "stopped", "Failed": "failed"}
RETRYABLE = "InternalServerError"  # how the reason of a failure begins that was not the user's


@dataclass(frozen=True, slots=True)
class ObservedTrial:
    """One trial with what is known of its training job.

    missing: the job was written down but not created yet (or the server died in between).
    """

    record: TrialRecord
    outcome: Outcome
    missing: bool

    @property
    def ended(self) -> bool:
        """Return whether the training job has ended."""
        return self.outcome.status in ENDED

    @property
    def objective_status(self) -> str:
        """Return `ObjectiveStatus`: whether the search could use the value."""
        if not self.ended:
            return "Pending"
        usable = self.outcome.objective is not None and self.outcome.status != "Failed"
        return "Succeeded" if usable else "Failed"

    def trial(self) -> Trial:
        """Return this as strategies and rules see it."""
        state = STATES.get(self.outcome.status, "running")
        if state == "completed" and self.outcome.objective is None:
            state = "failed"  # it said nothing about the objective
        return Trial(
            number=self.record.number,
            parameters=self.record.parameters,
            state=state,  # type: ignore[arg-type]
            objective=self.outcome.objective,
            curve=self.outcome.curve,
        )


def look(job: TuningJob, store: Store) -> list[ObservedTrial]:
    """Return all trials of a tuning job, in order."""
    r = job.resource
    seen = []
    for record in job.search.trials:
        if record.outcome is not None:
            seen.append(ObservedTrial(record, record.outcome, missing=False))
            continue
        resource = store.get(TRAINING_JOB, r.account, r.region, record.name)
        seen.append(
            ObservedTrial(record, outcome_of(resource, job, record), missing=resource is None)
        )
    return seen


def outcome_of(resource: Resource | None, job: TuningJob, record: TrialRecord) -> Outcome:
    """Return what a training job's record tells of its trial."""
    if resource is None:
        return Outcome(status="InProgress")
    training = training_job(resource)
    metric = training.progress.metrics.get(job.objective(record.definition)["MetricName"])
    return Outcome(
        status=training.status.value,
        objective=None if metric is None else metric.value,
        curve=training.progress.curve,
        failure=training.progress.failure,
        started_ms=training.progress.started_ms,
        ended_ms=training.progress.ended_ms,
    )


def summary(job: TuningJob, seen: ObservedTrial, *, of_job: bool = False) -> dict[str, Any]:
    """Return a `HyperParameterTrainingJobSummary`; `of_job` names the tuning job too."""
    record, outcome, r = seen.record, seen.outcome, job.resource
    objective = job.objective(record.definition)
    answer: dict[str, Any] = {
        "TrainingJobName": record.name,
        "TrainingJobArn": arn(r.account, r.region, TRAINING_JOB, record.name),
        "CreationTime": moment(record.created_ms),
        "TrainingStartTime": moment(outcome.started_ms),
        "TrainingEndTime": moment(outcome.ended_ms),
        "TrainingJobStatus": outcome.status,
        "TunedHyperParameters": dict(record.parameters),
        "FailureReason": outcome.failure,
        "ObjectiveStatus": seen.objective_status,
    }
    if record.definition != SINGLE:
        answer["TrainingJobDefinitionName"] = record.definition
    if of_job:
        answer["TuningJobName"] = r.name
    if outcome.objective is not None:
        answer["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": objective["Type"],
            "MetricName": objective["MetricName"],
            "Value": outcome.objective,
        }
    return {name: value for name, value in answer.items() if value is not None}


def best(job: TuningJob, seen: Sequence[ObservedTrial]) -> ObservedTrial | None:
    """Return the trial with the best objective among those that ended well; the earlier of two."""
    usable = [each for each in seen if each.objective_status == "Succeeded"]
    return min(usable, key=lambda each: cost(job, each), default=None)


def cost(job: TuningJob, seen: ObservedTrial) -> float:
    """Return the objective, turned round where it is maximized."""
    assert seen.outcome.objective is not None
    minimize = job.objective(seen.record.definition)["Type"] == "Minimize"
    return seen.outcome.objective if minimize else -seen.outcome.objective


def status_counters(seen: Sequence[ObservedTrial]) -> Mapping[str, int]:
    """Return `TrainingJobStatusCounters`."""
    counters = dict.fromkeys(
        ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0
    )
    for each in seen:
        status = each.outcome.status
        if status == "Failed":
            retryable = (each.outcome.failure or "").startswith(RETRYABLE)
            counters["RetryableError" if retryable else "NonRetryableError"] += 1
        else:
            counters["InProgress" if status == "Stopping" else status] += 1
    return counters


def objective_counters(seen: Sequence[ObservedTrial]) -> Mapping[str, int]:
    """Return `ObjectiveStatusCounters`."""
    counters = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    for each in seen:
        counters[each.objective_status] += 1
    return counters
