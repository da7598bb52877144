"""Amazon SageMaker: training jobs, models, endpoints; what other services may use of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloche.core.config import Config
from cloche.core.identity import Doorkeeper
from cloche.engine import Engine
from cloche.operation import Service, collect, service_model
from cloche.records.store import Store
from cloche.services.sagemaker import records_serving
from cloche.services.sagemaker.invoking import invoke
from cloche.services.sagemaker.layers import Layers
from cloche.services.sagemaker.loops.endpoint import EndpointLoop
from cloche.services.sagemaker.loops.training_job import TrainingJobs
from cloche.services.sagemaker.loops.tuning_job import TuningJobs
from cloche.services.sagemaker.loops.warm_pool import WarmPools
from cloche.services.sagemaker.operations import (
    endpoint,
    endpoint_config,
    model,
    tags,
    training_job,
    training_job_update,
    tuning_job,
)
from cloche.services.sagemaker.records import ENDPOINT
from cloche.services.sagemaker.router import (
    Answered,
    Failed,
    Invocation,
    Overloaded,
    Router,
    UnknownEndpoint,
    UnknownVariant,
)
from cloche.services.sagemaker.training.data_warnings import DataWarnings

if TYPE_CHECKING:
    from cloche.services.cloudwatch import CloudWatch
    from cloche.services.iam import Identity
    from cloche.services.logs import Logs
    from cloche.services.s3 import S3, Inputs

__all__ = [
    "Answered",
    "Failed",
    "Invocation",
    "Overloaded",
    "SageMaker",
    "UnknownEndpoint",
    "UnknownVariant",
    "service",
]
OPERATIONS = (
    training_job,
    training_job_update,
    tuning_job,
    model,
    endpoint_config,
    endpoint,
    tags,
)
LOOPS: tuple[Callable[[SageMaker], Any], ...] = (
    TrainingJobs,
    WarmPools,
    TuningJobs,
    EndpointLoop,
)


@dataclass
class SageMaker:
    """What SageMaker's handlers and loops need."""

    store: Store
    engine: Engine
    s3: S3
    logs: Logs
    cloudwatch: CloudWatch
    identity: Identity
    doors: Doorkeeper
    config: Config
    inputs: Inputs
    router: Router = field(default_factory=Router)

    def __post_init__(self) -> None:
        self.layers = Layers(self.engine, self.doors, self.config, self.store.clock)
        self.data = DataWarnings(self.config.home.data_checks, self.engine, self.store.clock)
        endpoints = (records_serving.endpoint(resource) for resource in self.store.each(ENDPOINT))
        replicas = (replica for each in endpoints for replica in each.state.replicas)
        self.layers.clear({replica.layer for replica in replicas if replica.layer is not None})

    async def close(self) -> None:
        """End what is of use to this server alone. Jobs and endpoints go on."""
        await self.data.close()

    async def invoke(
        self,
        account: str,
        region: str,
        name: str,
        invocation: Invocation,
        variant: str | None = None,
    ) -> Answered:
        """Return what a replica of the endpoint answers (for SageMaker Runtime).

        Raises UnknownEndpoint, UnknownVariant, Overloaded, Failed.
        """
        return await invoke(self.store, self.router, account, region, name, invocation, variant)


def service(sagemaker: SageMaker) -> Service:
    """Return SageMaker's operations and loops."""
    api = service_model("sagemaker")
    return Service(
        name="sagemaker",
        operations=collect(api, *OPERATIONS),
        api=sagemaker,
        loops=tuple(make(sagemaker) for make in LOOPS),
    )
