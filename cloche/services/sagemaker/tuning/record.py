"""What is kept of a tuning job: desired state, trials, and which status may follow which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from cloche.core.clock import to_ms
from cloche.core.typed import Record, decode
from cloche.records.store import Resource
from cloche.services.sagemaker.names import Request

TUNING_JOB = "hyper-parameter-tuning-job"
SINGLE = ""  # the name of the definition where only one was sent


class TuningJobStatus(StrEnum):
    """`HyperParameterTuningJobStatus` of DescribeHyperParameterTuningJob."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


UNSETTLED_TUNING = (TuningJobStatus.IN_PROGRESS, TuningJobStatus.STOPPING)


class Outcome(Record, frozen=True, kw_only=True):
    """How a trial's training job ended; kept here, since training jobs may be deleted.

    status: of the training job. objective: the last value of the metric; None: it gave none.
    """

    status: str
    objective: float | None = None
    curve: tuple[float, ...] = ()
    failure: str | None = None
    started_ms: int | None = None
    ended_ms: int | None = None


class TrialRecord(Record, frozen=True, kw_only=True):
    """One training job of the search, written down before the job is created.

    parameters: the tuned hyperparameters, as text. early: it was, or will be, stopped early.
    """

    number: int
    name: str
    definition: str
    parameters: Mapping[str, str]
    created_ms: int
    early: bool = False
    outcome: Outcome | None = None


class SearchProgress(Record, frozen=True, kw_only=True):
    """What was made of a tuning job so far (the resource's document).

    ending: how the job will end once its running trials have; reason: why it failed.
    """

    trials: tuple[TrialRecord, ...] = ()
    ending: Literal["Completed", "Failed", "Stopped"] | None = None
    reason: str | None = None
    converged_ms: int | None = None
    ended_ms: int | None = None

    def with_trial(self, new: TrialRecord) -> SearchProgress:
        """Return this with a trial added, or put in the place of the one of its number."""
        others = [trial for trial in self.trials if trial.number != new.number]
        return self.replace(trials=tuple(sorted((*others, new), key=lambda t: t.number)))


@dataclass(frozen=True, slots=True)
class TuningJob:
    """A tuning job as read."""

    resource: Resource
    search: SearchProgress

    @property
    def status(self) -> TuningJobStatus:
        """Return the status."""
        return TuningJobStatus(self.resource.status)

    @property
    def request(self) -> Request:
        """Return CreateHyperParameterTuningJob's parameters, defaults filled in (without tags)."""
        request: Request = self.resource.desired["Request"]
        return request

    @property
    def config(self) -> Request:
        """Return `HyperParameterTuningJobConfig`."""
        config: Request = self.request["HyperParameterTuningJobConfig"]
        return config

    @property
    def seed(self) -> int:
        """Return `RandomSeed`; one derived from the job's ARN and time where none was sent."""
        sent: int | None = self.config.get("RandomSeed")
        if sent is not None:
            return sent
        text = f"{self.resource.arn} {to_ms(self.resource.created)}"
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    @property
    def definitions(self) -> Mapping[str, Request]:
        """Return the training job definitions by name; a single one has the name ""."""
        several: Sequence[Request] = self.request.get("TrainingJobDefinitions") or ()
        if several:
            return {each["DefinitionName"]: each for each in several}
        return {SINGLE: self.request["TrainingJobDefinition"]}

    def objective(self, definition: str) -> Request:
        """Return `{"Type": …, "MetricName": …}` of a definition."""
        own: Request | None = self.definitions[definition].get("TuningObjective")
        objective: Request = own or self.config["HyperParameterTuningJobObjective"]
        return objective

    def ranges(self, definition: str) -> Request:
        """Return the `ParameterRanges` that a definition searches."""
        own: Request | None = self.definitions[definition].get("HyperParameterRanges")
        ranges: Request = own or self.config.get("ParameterRanges") or {}
        return ranges

    def trial_name(self, number: int) -> str:
        """Return the name of a trial's training job: `NAME-001-1a2b3c4d`, always the same."""
        text = f"{self.resource.arn} {to_ms(self.resource.created)} {number}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.resource.name}-{number:03d}-{digest}"


def tuning_job(resource: Resource) -> TuningJob:
    """Return the row as a tuning job; BadRecord when it is none."""
    return TuningJob(resource, decode(SearchProgress, resource.document, resource.arn))
