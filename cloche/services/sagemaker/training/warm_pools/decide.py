"""Managed warm pools: which job takes what an earlier one left, and how long that is kept.

The rules are those of "SageMaker AI Managed Warm Pools" in AWS's guide. Pure: the time is an
argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.attempts import INTERNAL
from cloche.services.sagemaker.training.record import TrainingJob, WarmPool, WarmPoolStatus
from cloche.services.sagemaker.training.status import SecondaryStatus

KEEP_ALIVE = "KeepAlivePeriodInSeconds"
CACHE = "/opt/ml/sagemaker/warmpoolcache"  # the persistent cache, as the job sees it
CACHE_VARIABLE = "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"
LONGEST_S = 28 * 86_400  # that a pool goes on from job to job
# What must be the same in two jobs' requests; the image need not be ("Matching training jobs").
SAME = ("RoleArn", "VpcConfig", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation")
SAME_RESOURCES = ("InstanceCount", "InstanceType", "VolumeKmsKeyId", "VolumeSizeInGB")


@dataclass(frozen=True, slots=True)
class Wait:
    """The pool stays available for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Terminate:
    """The pool's time is over."""


@dataclass(frozen=True, slots=True)
class Remove:
    """The pool was terminated: remove what it kept."""


def plan(
    status: WarmPoolStatus, job: TrainingJob | None, now: datetime
) -> Wait | Terminate | Remove:
    """Return what is next for a pool that no job uses; `job` is the one that left it."""
    if status is WarmPoolStatus.TERMINATED:
        return Remove()
    if job is None or over(job, now):
        return Terminate()
    return Wait((until_ms(job) - to_ms(now)) / 1000)


def keep_alive_s(request: Request) -> int:
    """Return how long a job's pool is kept; 0: not at all."""
    seconds: int = request["ResourceConfig"].get(KEEP_ALIVE) or 0
    return seconds


def check(resources: Request, spot: bool) -> None:
    """Refuse a pool where AWS has none ("Considerations")."""
    if not resources.get(KEEP_ALIVE):
        return
    groups = resources.get("InstanceGroups")
    if spot or groups:
        what = "managed spot training" if spot else "heterogeneous clusters (InstanceGroups)"
        raise AwsError(
            "ValidationException",
            f"Invalid ResourceConfig.{KEEP_ALIVE}. Warm pools can not be used with {what}.",
        )


def takes_part(job: TrainingJob) -> bool:
    """Return whether a job may begin in a pool: a tuning job's instances are its own."""
    spot, groups = "EnableManagedSpotTraining", job.request["ResourceConfig"].get("InstanceGroups")
    return not (job.request.get(spot) or groups or job.resource.desired.get("TuningJobArn"))


def matches(one: TrainingJob, other: TrainingJob) -> bool:
    """Return whether two jobs' instances are the same to AWS."""
    return identity(one) == identity(other)


def identity(job: TrainingJob) -> list[Any]:
    """Return what tells a job's instances from others; left out, false and empty are the same."""
    request, resources = job.request, job.request["ResourceConfig"]
    place = [job.resource.account, job.resource.region]
    own = [request.get(name) or None for name in SAME]
    return place + own + [resources.get(name) or None for name in SAME_RESOURCES]


def until_ms(job: TrainingJob) -> int:
    """Return when the pool that a job left ends, if no other job takes it."""
    pool = job.progress.pool
    assert pool is not None and pool.kept_ms is not None
    kept = pool.kept_ms + keep_alive_s(job.request) * 1000
    return min(kept, pool.made_ms + LONGEST_S * 1000)


def available(job: TrainingJob) -> bool:
    """Return whether a job left a pool that no other took and nobody ended."""
    pool = job.progress.pool
    return pool is not None and pool.status is WarmPoolStatus.AVAILABLE


def over(job: TrainingJob, now: datetime) -> bool:
    """Return whether a job's pool is not to be had any more."""
    return not available(job) or until_ms(job) <= to_ms(now)


def best(job: TrainingJob, earlier: Sequence[TrainingJob], now: datetime) -> TrainingJob | None:
    """Return the earlier job whose pool a job begins in: of those that match, the last one."""
    found = [(kept_ms(one), one.resource.name, one) for one in earlier]
    fitting = [each for each in found if not over(each[2], now) and matches(job, each[2])]
    return max(fitting, key=lambda each: each[:2])[2] if fitting else None


def kept_ms(job: TrainingJob) -> int:
    """Return since when a job's pool was available; 0: it never was."""
    pool = job.progress.pool
    return 0 if pool is None or pool.kept_ms is None else pool.kept_ms


def left(job: TrainingJob, now: datetime) -> WarmPool | None:
    """Return what becomes of a job's pool when the job ends ("Warm pool creation").

    Kept after any ending but one that puts the health of the instances in doubt.
    """
    pool, failure = job.progress.pool, job.progress.failure or ""
    if pool is None:
        return None
    doubtful = job.progress.ending is SecondaryStatus.FAILED and failure.startswith(INTERNAL)
    old = to_ms(now) >= pool.made_ms + LONGEST_S * 1000
    if doubtful or old or not keep_alive_s(job.request):
        return pool.replace(status=WarmPoolStatus.TERMINATED)
    return pool.replace(status=WarmPoolStatus.AVAILABLE, kept_ms=to_ms(now))


def reused(pool: WarmPool, by: TrainingJob, now: datetime) -> WarmPool:
    """Return a pool as its job shows it once another job took it."""
    ended = WarmPoolStatus.REUSED
    return pool.replace(status=ended, ended_ms=to_ms(now), reused_by=by.resource.name)


def terminated(job: TrainingJob, changed: datetime, now: datetime) -> WarmPool:
    """Return the pool that a job left as it is when its time is over, however long ago that was.

    changed: when the pool's row was last written; to end a pool makes its time over before that.
    """
    assert job.progress.pool is not None
    end = min(to_ms(now), max(until_ms(job), to_ms(changed)))
    return job.progress.pool.replace(status=WarmPoolStatus.TERMINATED, ended_ms=end)


def described(job: TrainingJob) -> Mapping[str, Any] | None:
    """Return `WarmPoolStatus`; None for a job without. The time is told once it is known."""
    pool = job.progress.pool
    if pool is None:
        return None
    answer: dict[str, Any] = {"Status": pool.status.value}
    if pool.status in (WarmPoolStatus.REUSED, WarmPoolStatus.TERMINATED):
        spent_ms = 0 if pool.kept_ms is None else (pool.ended_ms or pool.kept_ms) - pool.kept_ms
        answer["ResourceRetainedBillableTimeInSeconds"] = round(spent_ms / 1000)
    if pool.reused_by is not None:
        answer["ReusedByJob"] = pool.reused_by
    return answer
