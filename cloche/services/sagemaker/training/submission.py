"""The record of a training job: made by CreateTrainingJob and by tuning jobs, stopped by both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloche.core.clock import to_ms
from cloche.core.typed import encode
from cloche.records.store import Conflict, Resource, Store
from cloche.services.sagemaker.names import Request, arn, desired
from cloche.services.sagemaker.software.instance_types import in_status
from cloche.services.sagemaker.training.record import (
    TRAINING_JOB,
    Progress,
    instance_groups,
    training_job,
)
from cloche.services.sagemaker.training.status import MESSAGES, SecondaryStatus, TrainingJobStatus


def new_training_job(
    place: tuple[str, str],
    name: str,
    request: Request,
    tags: Sequence[Mapping[str, str]],
    now: datetime,
    tuning_job_arn: str | None = None,
) -> Resource:
    """Return the record of a new job.

    place: account and region. request: as `training.request.validated` gave it.
    """
    account, region = place
    groups = instance_groups(request["ResourceConfig"])
    types = [group.instance_type for group in groups]
    message = in_status(MESSAGES[SecondaryStatus.STARTING], types)
    progress = Progress(stream_s=to_ms(now) // 1000).go(SecondaryStatus.STARTING, now, message)
    asked: dict[str, Any] = dict(desired(request, tags))
    if tuning_job_arn is not None:
        asked["TuningJobArn"] = tuning_job_arn
    resource = Resource(
        account=account,
        region=region,
        kind=TRAINING_JOB,
        name=name,
        arn=arn(account, region, TRAINING_JOB, name),
        status=TrainingJobStatus.IN_PROGRESS,
        created=now,
        modified=now,
        desired=asked,
        document=encode(progress),
    )
    return resource


async def stop_training_job(store: Store, resource: Resource, now: datetime) -> Resource:
    """Record that a job shall stop; nothing changes when it is stopping or has ended.

    Returns the record as it is then.
    """
    while True:
        job = training_job(resource)
        if job.status is not TrainingJobStatus.IN_PROGRESS:
            return resource
        progress = job.progress
        if progress.ending is None:
            progress = progress.go(SecondaryStatus.STOPPING, now)
        try:
            return await store.update(
                resource,
                status=TrainingJobStatus.STOPPING,
                document=encode(progress),
            )
        except Conflict:
            newest = store.find(resource.arn)
            if newest is None:
                return resource
            resource = newest
