"""How many instances one training job may have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cloche.core.typed import readable
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.quotas import Place, check, counted
from cloche.services.sagemaker.training.record import TRAINING_JOB, instance_groups, training_job
from cloche.services.sagemaker.training.status import UNSETTLED

if TYPE_CHECKING:
    from cloche.records.store import Store


def check_training(resources: Request, store: Store, place: Place) -> None:
    """Refuse a training job of more instances than one may have."""
    groups = resources.get("InstanceGroups") or (resources,)
    wanted = counted((group["InstanceType"], group["InstanceCount"]) for group in groups)
    names = ("{type} for training job usage", "Maximum number of instances per training job")
    check(wanted, names, lambda: training_usage(store, place))


def training_usage(store: Store, place: Place) -> Counter[str]:
    """Return how many instances of each type the training jobs have that have not ended."""
    jobs = readable(training_job, store.each(TRAINING_JOB, UNSETTLED))
    return counted(
        (group.instance_type, len(group.hosts))
        for job in jobs
        if (job.resource.account, job.resource.region) == place
        for group in instance_groups(job.request["ResourceConfig"])
    )
