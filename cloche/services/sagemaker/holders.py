"""Who holds the machine's capacity, by the names that users gave."""

from __future__ import annotations

from collections.abc import Iterable

from cloche.records.store import Store
from cloche.services.sagemaker.serving.record import ENDPOINT, endpoint
from cloche.services.sagemaker.software.instance import gang_name
from cloche.services.sagemaker.training.record import TRAINING_JOB, UNSETTLED

LAYER = "layer-"


def holders(store: Store, gangs: Iterable[str]) -> list[str]:
    """Return what gangs belong to: `training job NAME`, `endpoint NAME`, each once."""
    known: dict[str, str] = {}
    for job in store.each(TRAINING_JOB, UNSETTLED):
        known[gang_name(job.name, job.arn, job.created)] = f"training job {job.name}"
    for each in store.each(ENDPOINT):
        for replica in endpoint(each).state.replicas:
            known[replica.gang] = f"endpoint {each.name}"
    found = (known.get(gang) or unknown(gang) for gang in gangs)
    return list(dict.fromkeys(found))


def unknown(gang: str) -> str:
    """Return what a gang is that no job or endpoint has."""
    if gang.startswith(LAYER):
        return "the installation of a requirements.txt"
    return "a process that is about to be removed"
