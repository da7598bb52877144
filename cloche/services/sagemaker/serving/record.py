"""The nouns of serving: what is deployed of an endpoint, and which status may follow which.

An endpoint's `desired` has, beside `Request` and `Tags`, `Deployment`: everything that the wanted
configuration and its models said when they were asked for. So a configuration or a model may be
deleted while it is served, and a replica that is replaced years later is the same. Its `document`
is `State`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cloche.core.typed import Record, decode
from cloche.records.store import Resource
from cloche.replicas.replacement import WorkerRecord, left
from cloche.services.sagemaker.names import arn

MODEL = "model"
ENDPOINT_CONFIG = "endpoint-config"
ENDPOINT = "endpoint"

PING_FAILED = (
    "The {container} container for production variant {variant} did not pass the ping health check."
    " Please check CloudWatch logs for this endpoint."
)


class EndpointStatus(StrEnum):
    """`EndpointStatus` of DescribeEndpoint: those that occur here."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    DELETING = "Deleting"
    FAILED = "Failed"


E = EndpointStatus
SERVING = (E.IN_SERVICE, E.UPDATING, E.ROLLING_BACK)  # these answer InvokeEndpoint
IN_PROGRESS = (E.CREATING, E.UPDATING, E.ROLLING_BACK, E.DELETING)  # these refuse UpdateEndpoint

NEXT: Mapping[EndpointStatus, tuple[EndpointStatus, ...]] = {
    E.CREATING: (E.IN_SERVICE, E.FAILED, E.DELETING),
    E.IN_SERVICE: (E.UPDATING, E.DELETING),
    E.UPDATING: (E.IN_SERVICE, E.ROLLING_BACK, E.DELETING),
    E.ROLLING_BACK: (E.IN_SERVICE, E.DELETING),
    E.DELETING: (),
    E.FAILED: (E.DELETING,),
}


class Variant(Record, frozen=True, kw_only=True):
    """A production variant with all that its model says: enough to start a replica of it.

    `model_data` is the S3 URI of a model.tar.gz, or of a prefix when not `archived`.
    """

    name: str
    model: str
    image: str
    model_data: str | None = None
    archived: bool = True
    environment: Mapping[str, str] = {}
    role_arn: str
    network_isolation: bool = False
    instance_type: str
    count: int
    weight: float
    startup_timeout_s: int = 480  # 8 minutes to pass the health check (hosting, "Your own code")
    download_timeout_s: int = 3600
    no_effect: tuple[str, ...] = ()  # names of settings that change nothing here
    volume_gb: int = 30  # what AWS gives an instance, unless the configuration says otherwise


class Replica(WorkerRecord, frozen=True, kw_only=True):
    """One instance of a variant: a gang of one process.

    `id` is an instance id, as log streams show it.
    """

    deployment: str
    variant: str
    layer: str | None = None  # name of what its model's requirements add to the environment

    @property
    def gang(self) -> str:
        """Return the name of its gang."""
        return f"endpoint-{self.id}"


class Deployment(Record, frozen=True, kw_only=True):
    """A configuration being served, or on its way."""

    id: str
    config: str
    variants: tuple[Variant, ...]
    replicas: tuple[Replica, ...] = ()

    def variant(self, name: str) -> Variant:
        """Return the variant with this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def of(self, variant: str) -> tuple[Replica, ...]:
        """Return the variant's replicas."""
        return tuple(replica for replica in self.replicas if replica.variant == variant)


class State(Record, frozen=True, kw_only=True):
    """What was made of an endpoint so far (the resource's document).

    `refused` is the deployment that failed: it is not tried again. `waiting` says what replicas
    wait for that can't be placed.
    """

    serving: Deployment | None = None
    coming: Deployment | None = None
    leaving: tuple[Replica, ...] = ()
    failure: str | None = None
    refused: str | None = None
    waiting: str | None = None

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Return every replica, those that leave too."""
        now = [d for d in (self.serving, self.coming) if d is not None]
        return (*(replica for d in now for replica in d.replicas), *self.leaving)

    def without_replicas(self, now_ms: int) -> State:
        """Return this with every replica on its way out."""
        out = tuple(d for d in (self.serving, self.coming) if d is not None)
        return self.replace(
            serving=None,
            coming=None,
            leaving=self.leaving + left((r for d in out for r in d.replicas), now_ms),
        )

    @property
    def deployments(self) -> frozenset[str]:
        """Return the ids of all deployments that still have something running."""
        now = [d.id for d in (self.serving, self.coming) if d is not None]
        return frozenset([*now, *(replica.deployment for replica in self.leaving)])


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as read."""

    resource: Resource
    wanted: Deployment
    state: State

    @property
    def status(self) -> EndpointStatus:
        """Return its status."""
        return EndpointStatus(self.resource.status)


def endpoint(resource: Resource) -> Endpoint:
    """Return the row as an endpoint; BadRecord when it is none."""
    wanted = decode(Deployment, resource.desired.get("Deployment"), f"{resource.arn} (Deployment)")
    return Endpoint(resource, wanted, decode(State, resource.document, resource.arn))


def endpoint_arn(account: str, region: str, name: str) -> str:
    """Return an endpoint's ARN."""
    return arn(account, region, "endpoint", name)


def log_group(endpoint_name: str) -> str:
    """Return the name of an endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"
