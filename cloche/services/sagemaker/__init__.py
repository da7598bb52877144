"""Amazon SageMaker: training jobs, models, endpoints; what other services may use of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.core.authorization import Context
from cloche.core.config import Config
from cloche.core.identity import GangDoors
from cloche.core.typed import readable
from cloche.engine import Engine
from cloche.operation import Service, collect, service_model
from cloche.records.store import Store
from cloche.services.sagemaker import tag_operations
from cloche.services.sagemaker.gangs import Gangs
from cloche.services.sagemaker.permissions import RESOURCE_TAGS
from cloche.services.sagemaker.serving.invoke import invoke
from cloche.services.sagemaker.serving.loop import EndpointLoop
from cloche.services.sagemaker.serving.operations import endpoint, endpoint_config, model
from cloche.services.sagemaker.serving.record import ENDPOINT
from cloche.services.sagemaker.serving.record import endpoint as endpoint_of
from cloche.services.sagemaker.serving.router import (
    Answered,
    Invocation,
    Router,
    UnknownEndpoint,
    UnknownVariant,
)
from cloche.services.sagemaker.software.layers import Layers
from cloche.services.sagemaker.training import operations as training_operations
from cloche.services.sagemaker.training import update_operation
from cloche.services.sagemaker.training.data_warnings import DataWarnings
from cloche.services.sagemaker.training.loop import TrainingJobs
from cloche.services.sagemaker.training.warm_pools.loop import WarmPools
from cloche.services.sagemaker.tuning import operations as tuning_operations
from cloche.services.sagemaker.tuning.loop import TuningJobs

if TYPE_CHECKING:
    from cloche.records.resource import Resource
    from cloche.services.cloudwatch import CloudWatch, Datum
    from cloche.services.iam import Identity
    from cloche.services.logs import Logs
    from cloche.services.s3 import ActingS3, ForRoles, Inputs, Sources

__all__ = [
    "RESOURCE_TAGS",
    "Answered",
    "Invocation",
    "SageMaker",
    "UnknownEndpoint",
    "UnknownVariant",
    "service",
]
SESSION_NAME = "SageMaker"  # of the sessions in which SageMaker uses a role, as on AWS
OPERATIONS = (
    training_operations,
    update_operation,
    tuning_operations,
    model,
    endpoint_config,
    endpoint,
    tag_operations,
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
    s3: ForRoles
    logs: Logs
    cloudwatch: CloudWatch
    identity: Identity
    doors: GangDoors
    config: Config
    sources: Sources
    router: Router = field(default_factory=Router)
    gangs: Gangs = field(default_factory=Gangs)

    def __post_init__(self) -> None:
        self.layers = Layers(self.engine, self.gangs, self.doors, self.config, self.store.clock)
        kept, clock = self.config.home.data_checks, self.store.clock
        self.data = DataWarnings(kept, self.engine, self.gangs, clock)
        rows = self.store.each(ENDPOINT)
        endpoints = list(readable(endpoint_of, rows))
        if len(endpoints) == len(rows):  # else nobody knows which layers are used
            replicas = (replica for each in endpoints for replica in each.state.replicas)
            self.layers.clear({replica.layer for replica in replicas if replica.layer is not None})

    async def close(self) -> None:
        """End what is of use to this server alone. Jobs and endpoints go on."""
        await self.data.close()

    def s3_as(self, role_arn: str) -> ActingS3:
        """Return the object store as a job or replica of this role sees it."""
        return self.s3.acting_as(self.identity.acting_as(role_arn, SESSION_NAME))

    def sources_as(self, role_arn: str) -> Inputs:
        """Return where input comes from, as a job or replica of this role sees it."""
        return self.sources.acting_as(self.identity.acting_as(role_arn, SESSION_NAME))

    async def open_log(
        self, resource: Resource, role_arn: str, group: str, stream: str, otherwise: Path
    ) -> Path:
        """Return the file that the log of a job or replica of this role goes to: a stream's, or
        `otherwise`, where the role may not write logs.
        """
        actor = self.identity.acting_as(role_arn, SESSION_NAME)
        return await self.logs.open_stream_as(actor, resource.region, group, stream, otherwise)

    async def put_metrics(
        self, resource: Resource, role_arn: str, namespace: str, data: Sequence[Datum]
    ) -> None:
        """Put the metrics of a job of this role; none, where the role may not put them."""
        actor = self.identity.acting_as(role_arn, SESSION_NAME)
        keys = Context({"cloudwatch:namespace": namespace})
        if actor.decide("cloudwatch:PutMetricData", "*", keys).allowed:
            await self.cloudwatch.put(resource.account, resource.region, namespace, data)

    async def invoke(
        self,
        account: str,
        region: str,
        name: str,
        invocation: Invocation,
        variant: str | None = None,
    ) -> Answered:
        """Return what a replica of the endpoint answers (for SageMaker Runtime).

        Raises UnknownEndpoint, UnknownVariant, Overloaded, NoReply.
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
