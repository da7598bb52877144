"""UpdateTrainingJob: how long a warm pool is kept, the profiler of a job that runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.records.store import Change, Conflict, Resource
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.permissions import KEEP_ALIVE, REMOTE_DEBUG, on_resource
from cloche.services.sagemaker.training.debugger.rules import KINDS
from cloche.services.sagemaker.training.operations import find
from cloche.services.sagemaker.training.record import TrainingJob, WarmPoolStatus
from cloche.services.sagemaker.training.request import check_rules
from cloche.services.sagemaker.training.status import TrainingJobStatus
from cloche.services.sagemaker.training.warm_pools import (
    decide as warm_pools,
)
from cloche.services.sagemaker.training.warm_pools import (
    record as warm_pool_record,
)

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

CONFIG, RULES = "ProfilerConfig", "ProfilerRuleConfigurations"
UPDATE = on_resource(
    "sagemaker:UpdateTrainingJob",
    "training-job/{TrainingJobName}",
    keys=(REMOTE_DEBUG, KEEP_ALIVE),
)


@operation(permissions=[UPDATE])
async def update_training_job(
    call: Call[SageMaker],
    *,
    TrainingJobName: str,
    ProfilerConfig: Request | None = None,
    ProfilerRuleConfigurations: Sequence[Request] = (),
    ResourceConfig: Request | None = None,
    RemoteDebugConfig: Request | None = None,
) -> dict[str, str]:
    """Record what is to change of a job; its loop, or that of warm pools, goes by it."""
    if (RemoteDebugConfig or {}).get("EnableRemoteDebug"):
        raise unsupported("RemoteDebugConfig.EnableRemoteDebug")
    while True:
        job = find(call, TrainingJobName)
        request, also = dict(job.request), list[Change]()
        if ProfilerConfig is not None or ProfilerRuleConfigurations:
            request |= profiler(job, ProfilerConfig, ProfilerRuleConfigurations)
        if ResourceConfig is not None:
            row = pool_of(call, job)
            # The row's loop looks at a row that is newer than what it saw.
            also.append(Change(old=row, new=call.store.newer(row)))
            request["ResourceConfig"] = {**request["ResourceConfig"], **ResourceConfig}
        if request == job.request:
            return {"TrainingJobArn": job.resource.arn}
        desired = {**job.resource.desired, "Request": request}
        try:
            await call.store.update(job.resource, desired=desired, also=also)
        except Conflict:
            continue
        return {"TrainingJobArn": job.resource.arn}


def profiler(job: TrainingJob, config: Request | None, rules: Sequence[Request]) -> dict[str, Any]:
    """Return the profiler's members of a job's request; an AwsError when they can't change.

    Rules are only added, and members of ProfilerConfig that are left out stay as they are, but for
    DisableProfiler, which is false unless it is sent (`update_profiler` of the SDK).
    """
    if job.status is not TrainingJobStatus.IN_PROGRESS or job.progress.ending is not None:
        raise AwsError(
            "ValidationException",
            "The request was rejected because the training job is in status "
            f"{job.secondary}; its profiler can only be updated while it trains.",
        )
    found: dict[str, Any] = {}
    if config is not None:
        kept = {k: v for k, v in (job.request.get(CONFIG) or {}).items() if k != "DisableProfiler"}
        found[CONFIG] = kept | dict(config)
    if rules:
        found[RULES] = [*(job.request.get(RULES) or ()), *rules]
    check_rules({name: None for pair in KINDS.items() for name in pair} | found)
    return found


def pool_of(call: Call[SageMaker], job: TrainingJob) -> Resource:
    """Return the row of the warm pool that a job left; an AwsError when there is none."""
    row = warm_pool_record.row_of(job, call.store)
    if row is None or warm_pools.over(job, call.now):
        raise AwsError(
            "ValidationException",
            f"The request was rejected because the training job has {pool_status(job, call.now)}; "
            f"{warm_pools.KEEP_ALIVE} can only be updated while its warm pool is Available.",
        )
    return row


def pool_status(job: TrainingJob, now: datetime) -> str:
    """Return in words where a job's warm pool is that can't be updated."""
    pool = job.progress.pool
    if pool is None:
        return "no warm pool"
    status = WarmPoolStatus.TERMINATED if warm_pools.available(job) else pool.status
    return f"a warm pool in status {status}"
