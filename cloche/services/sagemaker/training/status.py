"""The statuses of a training job: their messages, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


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
