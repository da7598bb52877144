"""The record of a training job: what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cloche.core.clock import to_ms
from cloche.core.typed import Record, decode
from cloche.records.store import Resource
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.status import (
    ENDINGS,
    MESSAGES,
    NEXT_SECONDARY,
    SecondaryStatus,
    TrainingJobStatus,
)

TRAINING_JOB = "training-job"
OBJECTIVE = "_tuning_objective_metric"  # the hyperparameter that names a tuning job's objective
WARM_POOL = "warm-pool"


class Transition(Record, frozen=True, kw_only=True):
    """One entry of SecondaryStatusTransitions; times in milliseconds since 1970."""

    status: SecondaryStatus
    start_ms: int
    end_ms: int | None = None
    message: str


class LastValue(Record, frozen=True, kw_only=True):
    """The last value that the log gave for a metric."""

    value: float
    at_ms: int


class Rule(Record, frozen=True, kw_only=True):
    """What a rule of the Debugger or the profiler said, and when."""

    status: str
    details: str
    at_ms: int


class WarmPoolStatus(StrEnum):
    """`WarmPoolStatus.Status` of DescribeTrainingJob."""

    IN_USE = "InUse"
    AVAILABLE = "Available"
    REUSED = "Reused"
    TERMINATED = "Terminated"


class WarmPool(Record, frozen=True, kw_only=True):
    """A training job's warm pool: its own, or taken over from an earlier job.

    `name` and `made_ms` (when the first job began) stay the same from job to job. It was
    Available from `kept_ms` to `ended_ms`; from then on it is Reused or Terminated.
    """

    name: str
    made_ms: int
    status: WarmPoolStatus = WarmPoolStatus.IN_USE
    kept_ms: int | None = None
    ended_ms: int | None = None
    reused_by: str | None = None  # the name of a job


class Progress(Record, frozen=True, kw_only=True):
    """What was made of a training job so far (the resource's document).

    `ending` is how the job will end: known when its processes have ended, and not changed after.
    `read` is, for each host, up to where its log was searched for metrics. `curve` is every value
    of the metric that a tuning job's objective is, in the order of the log. `unsearched` are the
    metric definitions, by number, whose expressions took too long. `overdue`: it is stopping
    because MaxWaitTimeInSeconds is over. With several attempts the transitions tell of all; logs
    and `read` are the newest one's.
    """

    transitions: tuple[Transition, ...] = ()
    started_ms: int | None = None  # TrainingStartTime: billing begins
    ended_ms: int | None = None
    stream_s: int = 0  # the epoch in the names of the log streams
    ending: SecondaryStatus | None = None
    failure: str | None = None
    uploaded: bool = False
    metrics: Mapping[str, LastValue] = {}
    read: Mapping[str, int] = {}
    curve: tuple[float, ...] = ()
    unsearched: tuple[int, ...] = ()
    overdue: bool = False
    rules: Mapping[str, Rule] = {}
    pool: WarmPool | None = None

    def go(self, status: SecondaryStatus, now: datetime, message: str | None = None) -> Progress:
        """Return this with `status` as the newest transition.

        The same status again changes its message alone. ValueError: it may not follow.
        """
        text = MESSAGES[status] if message is None else message
        if self.transitions:
            *before, last = self.transitions
            if last.status is status:
                return self.replace(transitions=(*before, last.replace(message=text)))
            if status not in NEXT_SECONDARY[last.status]:
                raise ValueError(f"{status} may not follow {last.status}")
            before.append(last.replace(end_ms=to_ms(now)))
        else:
            before = []
        done = to_ms(now) if status in ENDINGS else None
        new = Transition(status=status, start_ms=to_ms(now), end_ms=done, message=text)
        return self.replace(transitions=(*before, new))


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """Instances of one type; a job has one group unless its request names several."""

    name: str
    instance_type: str
    hosts: tuple[str, ...]


ONLY_GROUP = "homogeneousCluster"  # the name of a job's group where the request names none


def instance_groups(resources: Request) -> tuple[InstanceGroup, ...]:
    """Return the groups of a ResourceConfig; hosts are numbered through all of them."""
    named = resources.get("InstanceGroups") or [{"InstanceGroupName": ONLY_GROUP, **resources}]
    groups: list[InstanceGroup] = []
    first = 1
    for group in named:
        end = first + group.get("InstanceCount", 1)
        hosts = tuple(f"algo-{number}" for number in range(first, end))
        groups.append(InstanceGroup(group["InstanceGroupName"], group["InstanceType"], hosts))
        first = end
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training job as read."""

    resource: Resource
    progress: Progress

    @property
    def status(self) -> TrainingJobStatus:
        """Return the primary status."""
        return TrainingJobStatus(self.resource.status)

    @property
    def secondary(self) -> SecondaryStatus:
        """Return where the job is."""
        return self.progress.transitions[-1].status

    @property
    def request(self) -> Request:
        """Return CreateTrainingJob's parameters (without tags)."""
        request: Request = self.resource.desired["Request"]
        return request

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return `algo-1`, `algo-2`, …"""
        return tuple(host for group in self.groups for host in group.hosts)

    @property
    def groups(self) -> tuple[InstanceGroup, ...]:
        """Return the groups that the hosts belong to."""
        return instance_groups(self.request["ResourceConfig"])

    def group_of(self, host: str) -> InstanceGroup:
        """Return a host's group."""
        return next(group for group in self.groups if host in group.hosts)

    @property
    def max_run_s(self) -> int:
        """Return how long the processes may run, in seconds."""
        seconds: int = self.request["StoppingCondition"]["MaxRuntimeInSeconds"]
        return seconds

    @property
    def artifacts(self) -> str:
        """Return the S3 URI beneath which everything the job made is put."""
        path: str = self.request["OutputDataConfig"]["S3OutputPath"]
        return f"{path.rstrip('/')}/{self.resource.name}/output"

    @property
    def model_uri(self) -> str:
        """Return `ModelArtifacts.S3ModelArtifacts`."""
        archived = self.request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"
        return f"{self.artifacts}/{'model.tar.gz' if archived else 'model/'}"


def training_job(resource: Resource) -> TrainingJob:
    """Return the row as a training job; BadRecord when it is none."""
    return TrainingJob(resource, decode(Progress, resource.document, resource.arn))
