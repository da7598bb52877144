"""Jobs that start over: managed spot training, and retries after a lost machine.

Nothing takes instances away here, so an interruption happens when the job's tag
`cloche:spot-interruption-after-seconds` asks for it: `20` interrupts the first attempt after 20
seconds of training, `20 5` also the second one after 5. The job then goes the way that AWS
documents ("Managed Spot Training Lifecycle"): Interrupted, then again from Starting, with the
checkpoints that it left. Pure, except that the time is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.engine import Seen
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.decide import End, Plan, StopHosts, decide
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.status import ENDED, SecondaryStatus

INTERRUPTION = "cloche:spot-interruption-after-seconds"
INTERNAL = "InternalServerError"  # the only failures that are tried again (API_RetryStrategy)

S = SecondaryStatus
AGAIN = (S.INTERRUPTED, S.RESTARTING)


@dataclass(frozen=True, slots=True)
class Leave:
    """Give up this attempt, for the reason that the status tells; another one follows."""

    status: SecondaryStatus
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Save the checkpoints, let go of hosts and folders, begin again."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """MaxWaitTimeInSeconds is over: stop the job."""


def plan(
    job: TrainingJob, seen: Mapping[str, Seen] | None, now: datetime
) -> Plan | Leave | Restart | Overdue:
    """Return what to do next for a job that may have several attempts."""
    if job.status in ENDED or job.progress.ending is not None or job.secondary is S.STOPPING:
        return decide(job, seen)
    if wait_left_s(job, now) <= 0:
        return Overdue()
    if job.secondary in AGAIN:
        running = any(one.state == "running" for one in (seen or {}).values())
        return StopHosts() if running else Restart()
    following = decide(job, seen)
    if isinstance(following, End):
        failure = following.failure or ""
        return Leave(S.RESTARTING, failure) if retried(job, failure) else following
    return Leave(S.INTERRUPTED) if interrupted(job, now) else following


def wait_left_s(job: TrainingJob, now: datetime) -> float:
    """Return how long the job may still take in all, waits included; infinity: no bound."""
    wait_s: int | None = job.request["StoppingCondition"].get("MaxWaitTimeInSeconds")
    age_s = (now - job.resource.created).total_seconds()
    return float("inf") if wait_s is None else wait_s - age_s


def retried(job: TrainingJob, failure: str) -> bool:
    """Return whether a job that would fail for this reason starts over."""
    most = job.request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
    return failure.startswith(INTERNAL) and count(job, S.RESTARTING) < most


def interrupted(job: TrainingJob, now: datetime) -> bool:
    """Return whether the instances are taken away now."""
    if job.secondary is not S.TRAINING or not job.request.get("EnableManagedSpotTraining"):
        return False
    try:
        asked = seconds(job.resource.desired["Tags"].get(INTERRUPTION, ""))
    except ValueError:
        return False
    number = count(job, S.INTERRUPTED)
    age_s = (to_ms(now) - job.progress.transitions[-1].start_ms) / 1000
    return number < len(asked) and age_s >= asked[number]


def count(job: TrainingJob, status: SecondaryStatus) -> int:
    """Return how often a job came to a status."""
    return sum(t.status is status for t in job.progress.transitions)


def seconds(text: str) -> list[float]:
    """Return the numbers that the tag has; ValueError."""
    found = [float(part) for part in text.split()]
    if any(not 0 <= each < float("inf") for each in found):
        raise ValueError(text)
    return found


def remaining_s(job: TrainingJob) -> float:
    """Return how long the next attempt may run: MaxRuntimeInSeconds is for all together
    (API_StoppingCondition).
    """
    ran_ms = sum(
        (t.end_ms or t.start_ms) - t.start_ms
        for t in job.progress.transitions
        if t.status is S.TRAINING
    )
    return max(1.0, job.max_run_s - ran_ms / 1000)


def billable_s(job: TrainingJob) -> int:
    """Return the seconds, at least one, in which instances were held: without the time between
    two attempts. Nothing costs less here, so that a job without interruption saves nothing.
    """
    total_ms, since = 0, job.progress.started_ms
    for t in job.progress.transitions:
        if t.status is S.DOWNLOADING and since is None:
            since = t.start_ms
        elif t.status in AGAIN and since is not None:
            total_ms, since = total_ms + t.start_ms - since, None
    if since is not None and job.progress.ended_ms is not None:
        total_ms += job.progress.ended_ms - since
    return max(1, round(total_ms / 1000))


def check_stopping(stopping: Request, spot: bool, max_run_s: int) -> None:
    """Refuse a MaxWaitTimeInSeconds that is missing, too short, or without managed spot."""
    wait_s = stopping.get("MaxWaitTimeInSeconds")
    if wait_s is not None and not spot:
        raise AwsError(
            "ValidationException",
            "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining "
            "is set to true",
        )
    if spot and (wait_s is None or wait_s < max_run_s):
        raise AwsError(
            "ValidationException",
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds",
        )


def check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    """Refuse an interruption that could not be made true."""
    for tag in tags:
        if tag["Key"] != INTERRUPTION:
            continue
        try:
            seconds(tag["Value"])
        except ValueError as error:
            raise AwsError(
                "ValidationException",
                f"The tag {INTERRUPTION} must be seconds of training, one number for each "
                f"attempt that is to be interrupted, such as '20' or '20 5': {tag['Value']!r}",
            ) from error
