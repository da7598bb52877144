"""What the hosts of a job use, put to CloudWatch: often at first, then less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES
from cloche.services.sagemaker.training import hosts as h
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.watch import NAMESPACE, UsageSample, usage_data

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

FIRST_SAMPLE_S, LAST_SAMPLE_S = 1.0, 5.0  # between two: soon while a job is young


async def sample(
    job: TrainingJob, before: UsageSample | None, age_s: float, sagemaker: SageMaker
) -> UsageSample | None:
    """Put what the hosts use to CloudWatch, when it is time; return the newest sample."""
    now, r = sagemaker.store.clock.now(), job.resource
    pause_s = min(LAST_SAMPLE_S, max(FIRST_SAMPLE_S, age_s / 10))
    if before is not None and (now - before.at).total_seconds() < pause_s:
        return before
    newest = UsageSample(now, await executors.ENGINE.run(sagemaker.engine.usage, h.gang_of(job)))
    if before is not None:
        capacity = await executors.ENGINE.run(sagemaker.engine.capacity)
        memory_mib = {
            host: max(1, min(INSTANCE_TYPES[g.instance_type].memory_mib, capacity.memory_mib))
            for g in job.groups
            for host in g.hosts
        }
        data = usage_data(r.name, before, newest, memory_mib)
        await sagemaker.put_metrics(r, job.request["RoleArn"], NAMESPACE, data)
    return newest
