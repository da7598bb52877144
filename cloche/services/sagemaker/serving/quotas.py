"""How many instances one endpoint may have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cloche.core.typed import readable
from cloche.services.sagemaker.quotas import Place, check, counted
from cloche.services.sagemaker.serving.record import ENDPOINT, Deployment, endpoint

if TYPE_CHECKING:
    from cloche.records.store import Store


def check_serving(
    deployment: Deployment, store: Store, place: Place, now: Deployment | None = None
) -> None:
    """Refuse an endpoint of more instances than one may have; `now`: those that it keeps."""
    wanted = counted((variant.instance_type, variant.count) for variant in deployment.variants)
    kept = counted((v.instance_type, v.count) for v in (now.variants if now else ()))
    names = ("{type} for endpoint usage", "Maximum number of instances per endpoint")
    check(wanted, names, lambda: serving_usage(store, place), kept)


def serving_usage(store: Store, place: Place) -> Counter[str]:
    """Return how many instances of each type the endpoints are to have."""
    endpoints = readable(endpoint, store.each(ENDPOINT))
    return counted(
        (variant.instance_type, variant.count)
        for each in endpoints
        if (each.resource.account, each.resource.region) == place
        for variant in each.wanted.variants
    )
