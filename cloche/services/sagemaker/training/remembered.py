"""What the loop of training jobs keeps in memory of one job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.services.sagemaker.software.layers import Asker, Asking, Installing, Layer
from cloche.services.sagemaker.training import hosts
from cloche.services.sagemaker.training.log_metrics import Harvest
from cloche.services.sagemaker.training.record import TrainingJob
from cloche.services.sagemaker.training.staging import Preparing
from cloche.services.sagemaker.training.watch import UsageSample

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker


@dataclass
class Remembered:
    """What saves work between two steps; after a restart it is found again."""

    preparing: Preparing = field(default_factory=Preparing)
    logs: dict[str, Path] = field(default_factory=dict)
    harvest: Harvest = field(default_factory=Harvest)
    failures: int = 0  # of its preparation, for reasons that were not its own
    sample: UsageSample | None = None
    check: asyncio.Task[None] | None = None
    damage: asyncio.Task[str | None] | None = None  # why its input can't be trusted
    asker: Asker | None = None  # for what its requirements add

    async def layer(
        self, job: TrainingJob, sagemaker: SageMaker, wake: Callable[[str], None]
    ) -> Layer | Installing | None:
        """Return what holds the job's requirements; None: pip installs them in the job, if any."""
        if self.asker is None:
            config, engine = sagemaker.config, sagemaker.engine
            self.asker = Asker(await executors.FILES.run(hosts.requirements, job, config, engine))
        r, role_arn = job.resource, job.request["RoleArn"]
        by = Asking(r.account, r.region, role_arn, r.arn, wake)
        return await self.asker.look(sagemaker.layers, by)
