"""A job's input is presented beside its loop's steps: what comes from outside takes its time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.services.sagemaker.training import hosts
from cloche.services.sagemaker.training.record import TrainingJob

if TYPE_CHECKING:
    from cloche.services.s3 import Inputs
    from cloche.services.sagemaker import SageMaker

SOON_S = 10.0  # that a step waits for it: links are made in less


@dataclass
class Preparing:
    """The presentation of one job's input, until it is there or nobody wants it."""

    done: bool = False
    task: asyncio.Task[None] | None = None
    inputs: Inputs | None = None

    @property
    def begun(self) -> bool:
        """Return whether some of it may be there."""
        return self.done or self.task is not None

    async def ready(self, job: TrainingJob, sagemaker: SageMaker) -> bool:
        """Tell whether all is there; raises what `prepare` does, after which it can begin again."""
        if self.done:
            return True
        if self.task is None:
            self.inputs = sagemaker.sources_as(job.request["RoleArn"])
            work = executors.FILES.run(hosts.prepare, job, self.inputs, sagemaker.config)
            self.task = asyncio.create_task(work)
        done, _ = await asyncio.wait({self.task}, timeout=SOON_S)
        if not done:
            return False
        task, self.task = self.task, None
        task.result()
        self.done = True
        return True

    async def stop(self) -> None:
        """Break off what is under way, and wait for its end: the folder is free then."""
        if self.task is None:
            return
        assert self.inputs is not None
        self.inputs.halted.set()
        await asyncio.wait({self.task})
        self.task = None
