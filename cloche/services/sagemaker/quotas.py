"""How many instances one job or one endpoint may have: AWS's quotas, and AWS's refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.services.sagemaker.records import (
    ENDPOINT,
    TRAINING_JOB,
    UNSETTLED,
    Request,
    instance_groups,
    training_job,
)
from cloche.services.sagemaker.records_serving import Deployment, endpoint

if TYPE_CHECKING:
    from cloche.records.store import Store

MOST_INSTANCES = 16  # of one job or endpoint: each is a sandbox, and they start together
EXCEEDED = (
    "The account-level service limit '{name}' is {most} Instances, with current utilization of "
    "{used} Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to "
    "request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
    "support to request an increase for this quota."
)
Place = tuple[str, str]  # account and region


def check_training(resources: Request, store: Store, place: Place) -> None:
    """Refuse a training job of more instances than one may have."""
    groups = resources.get("InstanceGroups") or (resources,)
    wanted = counted((group["InstanceType"], group["InstanceCount"]) for group in groups)
    names = ("{type} for training job usage", "Maximum number of instances per training job")
    check(wanted, names, lambda: training_usage(store, place))


def check_serving(
    deployment: Deployment, store: Store, place: Place, now: Deployment | None = None
) -> None:
    """Refuse an endpoint of more instances than one may have; `now`: those that it keeps."""
    wanted = counted((variant.instance_type, variant.count) for variant in deployment.variants)
    kept = counted((v.instance_type, v.count) for v in (now.variants if now else ()))
    names = ("{type} for endpoint usage", "Maximum number of instances per endpoint")
    check(wanted, names, lambda: serving_usage(store, place), kept)


def check(
    wanted: Mapping[str, int],
    names: tuple[str, str],
    usage: Callable[[], Counter[str]],
    kept: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Refuse too many of one type, or of all types together; `usage`: what there is now."""
    for kind, count in wanted.items():
        if count > MOST_INSTANCES:
            raise exceeded(names[0].format(type=kind), usage()[kind], count - kept.get(kind, 0))
    if sum(wanted.values()) > MOST_INSTANCES:
        now = sum(kept.values())
        raise exceeded(names[1], now, sum(wanted.values()) - now)


def exceeded(name: str, used: int, delta: int) -> AwsError:
    """Return AWS's refusal."""
    text = EXCEEDED.format(name=name, most=MOST_INSTANCES, used=used, delta=delta)
    return AwsError("ResourceLimitExceeded", text)


def training_usage(store: Store, place: Place) -> Counter[str]:
    """Return how many instances of each type the training jobs have that have not ended."""
    jobs = (training_job(each) for each in store.each(TRAINING_JOB, UNSETTLED))
    return counted(
        (group.instance_type, len(group.hosts))
        for job in jobs
        if (job.resource.account, job.resource.region) == place
        for group in instance_groups(job.request["ResourceConfig"])
    )


def serving_usage(store: Store, place: Place) -> Counter[str]:
    """Return how many instances of each type the endpoints are to have."""
    endpoints = (endpoint(each) for each in store.each(ENDPOINT))
    return counted(
        (variant.instance_type, variant.count)
        for each in endpoints
        if (each.resource.account, each.resource.region) == place
        for variant in each.wanted.variants
    )


def counted(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the sums."""
    sums: Counter[str] = Counter()
    for name, count in pairs:
        sums[name] += count
    return sums
