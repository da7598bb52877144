"""The record of a training job: what is kept of it, and which status may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cloche.core.clock import to_ms
from cloche.core.typed import Record, decode
from cloche.records.store import Resource
from cloche.services.sagemaker.names import Request

TRAINING_JOB = "training-job"
OBJECTIVE = "_tuning_objective_metric"  # the hyperparameter that names a tuning job's objective
WARM_POOL = "warm-pool"


class TrainingJobStatus(StrEnum):
    """`TrainingJobStatus` of DescribeTrainingJob."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


UNSETTLED = (TrainingJobStatus.IN_PROGRESS, TrainingJobStatus.STOPPING)
ENDED = (TrainingJobStatus.COMPLETED, TrainingJobStatus.FAILED, TrainingJobStatus.STOPPED)

NEXT: Mapping[TrainingJobStatus, tuple[TrainingJobStatus, ...]] = {
    TrainingJobStatus.IN_PROGRESS: (TrainingJobStatus.STOPPING, *ENDED),
    TrainingJobStatus.STOPPING: ENDED,
    TrainingJobStatus.COMPLETED: (),
    TrainingJobStatus.FAILED: (),
    TrainingJobStatus.STOPPED: (),
}


class SecondaryStatus(StrEnum):
    """`SecondaryStatus` of DescribeTrainingJob: where the job is."""

    STARTING = "Starting"
    DOWNLOADING = "Downloading"
    PENDING = "Pending"  # waits for compute capacity
    TRAINING = "Training"
    STOPPING = "Stopping"
    UPLOADING = "Uploading"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"
    MAX_WAIT_TIME_EXCEEDED = "MaxWaitTimeExceeded"
    INTERRUPTED = "Interrupted"  # the spot instances were taken away; it starts over
    RESTARTING = "Restarting"  # the machine was lost; it starts over


S = SecondaryStatus
ENDINGS = (S.COMPLETED, S.FAILED, S.STOPPED, S.MAX_RUNTIME_EXCEEDED, S.MAX_WAIT_TIME_EXCEEDED)
NEXT_SECONDARY: Mapping[SecondaryStatus, tuple[SecondaryStatus, ...]] = {
    S.STARTING: (S.PENDING, S.DOWNLOADING, S.STOPPING, S.FAILED),
    S.DOWNLOADING: (S.PENDING, S.TRAINING, S.STOPPING, S.FAILED, S.RESTARTING),
    S.PENDING: (S.DOWNLOADING, S.TRAINING, S.STOPPING, S.FAILED, S.RESTARTING),
    S.TRAINING: (S.UPLOADING, S.STOPPING, S.FAILED, S.INTERRUPTED, S.RESTARTING),
    S.INTERRUPTED: (S.STARTING, S.STOPPING),
    S.RESTARTING: (S.STARTING, S.STOPPING),
    S.STOPPING: (S.UPLOADING, S.STOPPED, S.MAX_WAIT_TIME_EXCEEDED),
    S.UPLOADING: ENDINGS,
    S.COMPLETED: (),
    S.FAILED: (),
    S.STOPPED: (),
    S.MAX_RUNTIME_EXCEEDED: (),
    S.MAX_WAIT_TIME_EXCEEDED: (),
}
STATUS_OF_ENDING: Mapping[SecondaryStatus, TrainingJobStatus] = {
    S.COMPLETED: TrainingJobStatus.COMPLETED,
    S.FAILED: TrainingJobStatus.FAILED,
    S.STOPPED: TrainingJobStatus.STOPPED,
    S.MAX_RUNTIME_EXCEEDED: TrainingJobStatus.STOPPED,
    S.MAX_WAIT_TIME_EXCEEDED: TrainingJobStatus.STOPPED,
}

# `StatusMessage` of each transition, as the service gives them (they show in the SDK's log).
MESSAGES: Mapping[SecondaryStatus, str] = {
    S.STARTING: "Starting the training job",
    S.DOWNLOADING: "Downloading input data",
    S.PENDING: "Waiting for capacity",
    S.TRAINING: "Training image download completed. Training in progress.",
    S.STOPPING: "Stopping the training job",
    S.UPLOADING: "Uploading generated training model",
    S.COMPLETED: "Training job completed",
    S.FAILED: "Training job failed",
    S.STOPPED: "Training job stopped",
    S.MAX_RUNTIME_EXCEEDED: "Training job runtime exceeded MaxRuntimeInSeconds provided",
    # The next two are the words of API_DescribeTrainingJob.
    S.MAX_WAIT_TIME_EXCEEDED: "The job stopped because it exceeded the maximum allowed wait time.",
    S.INTERRUPTED: (
        "The job stopped because the managed spot training instances were interrupted."
    ),
    S.RESTARTING: "Restarting the training job",
}


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
