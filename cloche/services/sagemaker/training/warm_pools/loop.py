"""Ends warm pools whose time is over, and removes what they kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloche.core import executors
from cloche.core.beneath import remove as remove_tree
from cloche.loop import Loop
from cloche.records.store import Resource
from cloche.services.sagemaker.training.record import WARM_POOL, WarmPoolStatus
from cloche.services.sagemaker.training.warm_pools import record
from cloche.services.sagemaker.training.warm_pools.decide import Remove, Terminate, Wait, plan

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

IDLE = (WarmPoolStatus.AVAILABLE, WarmPoolStatus.TERMINATED)


@dataclass
class WarmPools(Loop):
    """The loop of warm pools that no job uses."""

    sagemaker: SageMaker
    kind: ClassVar[str] = WARM_POOL

    def load(self) -> Sequence[Resource]:
        """Return the pools that wait for a job, or for their end."""
        return self.sagemaker.store.each(WARM_POOL, IDLE)

    def unsettled(self, resource: Resource) -> bool:
        """Tell whether `load` returns a resource that is as this one."""
        return resource.status in IDLE

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one pool.

        The row goes after the folder: a server that dies in between finds the row, and looks.
        """
        store, now = self.sagemaker.store, self.sagemaker.store.clock.now()
        job = record.holder(resource, store)
        match plan(WarmPoolStatus(resource.status), job, now):
            case Wait(seconds):
                return seconds
            case Terminate():
                await record.terminate(store, resource, job, now)
                return 0.0
            case Remove():
                kept = record.folder(resource.name, self.sagemaker.config)
                await executors.FILES.run(remove_tree, kept)
                await store.delete(resource)
        return None
