"""CreateEndpoint, DescribeEndpoint, ListEndpoints, UpdateEndpoint, …, DeleteEndpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.core.errors import AwsError, unsupported
from cloche.core.typed import encode
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, Permission
from cloche.records.store import Conflict, Document, Resource
from cloche.services.sagemaker.named_resources import find, insert, listed
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.no_effect import in_serving
from cloche.services.sagemaker.permissions import creation, on_resource
from cloche.services.sagemaker.serving.operations.model import artifacts
from cloche.services.sagemaker.serving.quotas import check_serving
from cloche.services.sagemaker.serving.record import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    IN_PROGRESS,
    MODEL,
    Deployment,
    Endpoint,
    EndpointStatus,
    Variant,
    endpoint,
)

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

E = EndpointStatus
MAX_REASON = 1024  # characters of a FailureReason
RESOURCE = "endpoint/{EndpointName}"
CONFIG = "endpoint-config/{EndpointConfigName}"
CREATE = (
    *creation("sagemaker:CreateEndpoint", RESOURCE),
    on_resource("sagemaker:CreateEndpoint", CONFIG, keys=(REQUEST_TAGS,)),
)


@operation(permissions=CREATE)
async def create_endpoint(
    call: Call[SageMaker],
    *,
    EndpointName: str,
    EndpointConfigName: str,
    DeploymentConfig: Request | None = None,
    Tags: Sequence[Mapping[str, str]] = (),
) -> dict[str, str]:
    """Record the desired state of an endpoint; its loop starts the replicas."""
    check_deployment_config(DeploymentConfig)
    new = wanted(call, EndpointConfigName)
    check_serving(new, call.store, (call.account, call.region))
    request = {"EndpointName": EndpointName, "EndpointConfigName": EndpointConfigName}
    where = await insert(
        call,
        ENDPOINT,
        EndpointName,
        request,
        Tags,
        status=E.CREATING,
        more={"Deployment": encode(new)},
    )
    return {"EndpointArn": where}


@operation(permissions=[on_resource("sagemaker:DescribeEndpoint", RESOURCE)])
def describe_endpoint(call: Call[SageMaker], *, EndpointName: str) -> dict[str, Any]:
    """Return what is served, what is on its way, and how far it is."""
    found = endpoint(find(call, ENDPOINT, EndpointName))
    resource, state = found.resource, found.state
    shown = state.serving or found.wanted
    answer: dict[str, Any] = summary(resource) | {"EndpointConfigName": shown.config}
    if state.serving is not None:
        answer["ProductionVariants"] = [
            described(state.serving, v, "Updating", state.waiting) for v in shown.variants
        ]
    if state.coming is not None:
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": state.coming.config,
            "StartTime": resource.created if state.serving is None else started(found),
            "ProductionVariants": [
                described(state.coming, v, "Creating", state.waiting)
                | {"InstanceType": v.instance_type}
                for v in state.coming.variants
            ],
        }
    if state.failure is not None:
        answer["FailureReason"] = state.failure[:MAX_REASON]
    return answer


@operation(permissions=[Permission("sagemaker:ListEndpoints")], on=executors.RECORDS)
def list_endpoints(
    call: Call[SageMaker],
    *,
    SortBy: str = "CreationTime",
    SortOrder: str = "Descending",
    NextToken: str | None = None,
    MaxResults: int = 10,
    NameContains: str | None = None,
    CreationTimeBefore: datetime | None = None,
    CreationTimeAfter: datetime | None = None,
    LastModifiedTimeBefore: datetime | None = None,
    LastModifiedTimeAfter: datetime | None = None,
    StatusEquals: str | None = None,
) -> dict[str, Any]:
    """Return a page of summaries."""
    return listed(
        call,
        ENDPOINT,
        summary,
        "Endpoints",
        name_contains=NameContains,
        created=(CreationTimeAfter, CreationTimeBefore),
        modified=(LastModifiedTimeAfter, LastModifiedTimeBefore),
        status=StatusEquals,
        sort_by=SortBy,
        order=SortOrder,
        limit=MaxResults,
        after=NextToken,
    )


@operation(permissions=[on_resource("sagemaker:UpdateEndpoint", RESOURCE, CONFIG)])
async def update_endpoint(
    call: Call[SageMaker],
    *,
    EndpointName: str,
    EndpointConfigName: str,
    RetainAllVariantProperties: bool = False,
    ExcludeRetainedVariantProperties: Sequence[Mapping[str, str]] = (),
    DeploymentConfig: Request | None = None,
    RetainDeploymentConfig: bool = False,
) -> dict[str, str]:
    """Ask for another configuration: its replicas come up first, then the old ones go."""
    check_deployment_config(DeploymentConfig)
    kept = {"DesiredInstanceCount": "count", "DesiredWeight": "weight"}
    for excluded in ExcludeRetainedVariantProperties:
        if excluded["VariantPropertyType"] == "DataCaptureConfig":
            continue
        kept.pop(excluded["VariantPropertyType"], None)
    while True:
        found = updatable(find(call, ENDPOINT, EndpointName))
        new = wanted(call, EndpointConfigName)
        if RetainAllVariantProperties and found.state.serving is not None:
            new = retained(new, found.state.serving, kept.values())
        if await request_deployment(call, found, new):
            return {"EndpointArn": found.resource.arn}


@operation(permissions=[on_resource("sagemaker:UpdateEndpointWeightsAndCapacities", RESOURCE)])
async def update_endpoint_weights_and_capacities(
    call: Call[SageMaker],
    *,
    EndpointName: str,
    DesiredWeightsAndCapacities: Sequence[Request],
) -> dict[str, str]:
    """Ask for other shares or numbers of instances of the variants that are served."""
    while True:
        found = updatable(find(call, ENDPOINT, EndpointName))
        serving = found.state.serving
        assert serving is not None  # an endpoint in service has one
        variants = {variant.name: variant for variant in serving.variants}
        for change in DesiredWeightsAndCapacities:
            variant = variants.get(change["VariantName"])
            if variant is None:
                raise AwsError(
                    "ValidationException",
                    f'The variant name(s) "{change["VariantName"]}" is/are not present within '
                    f'endpoint configuration "{serving.config}".',
                )
            if change.get("ServerlessUpdateConfig"):
                raise unsupported("ServerlessUpdateConfig (serverless inference)")
            count = change.get("DesiredInstanceCount", variant.count)
            if count < 1:
                raise unsupported("DesiredInstanceCount 0", "Delete the endpoint instead.")
            weight = change.get("DesiredWeight", variant.weight)
            variants[variant.name] = variant.replace(count=count, weight=weight)
        new = serving.replace(variants=tuple(variants.values()), replicas=())
        if await request_deployment(call, found, new):
            return {"EndpointArn": found.resource.arn}


@operation(permissions=[on_resource("sagemaker:DeleteEndpoint", RESOURCE)])
async def delete_endpoint(call: Call[SageMaker], *, EndpointName: str) -> None:
    """Mark for deletion: the replicas finish what they are at, then the record goes."""
    while True:
        resource = find(call, ENDPOINT, EndpointName)
        if resource.status == E.DELETING:
            return
        try:
            await call.store.update(resource, status=E.DELETING)
        except Conflict:
            continue
        return


def check_deployment_config(config: Request | None) -> None:
    """Refuse what differs from all at once with the old ones kept until the new ones serve."""
    if not config:
        return
    for name in ("AutoRollbackConfiguration", "RollingUpdatePolicy"):
        if config.get(name):
            raise unsupported(f"DeploymentConfig.{name}")
    traffic = config.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    if traffic.get("Type", "ALL_AT_ONCE") != "ALL_AT_ONCE":
        raise unsupported(f"TrafficRoutingConfiguration.Type {traffic['Type']}", "Use ALL_AT_ONCE.")


def updatable(resource: Resource) -> Endpoint:
    """Return the endpoint if it may be updated now."""
    found = endpoint(resource)
    if found.status in IN_PROGRESS:
        raise AwsError(
            "ValidationException", f'Cannot update in-progress endpoint "{resource.arn}".'
        )
    if found.status is E.FAILED:
        raise AwsError("ValidationException", f'Cannot update failed endpoint "{resource.arn}".')
    return found


async def request_deployment(call: Call[SageMaker], found: Endpoint, new: Deployment) -> bool:
    """Write the desired state; False when the record changed meanwhile."""
    serving = found.state.serving
    now = serving if serving is not None and serving.id == new.id else None
    check_serving(new, call.store, (call.account, call.region), now)
    resource = found.resource
    request: Document = {**resource.desired["Request"], "EndpointConfigName": new.config}
    desired = {**resource.desired, "Request": request, "Deployment": encode(new)}
    try:
        await call.store.update(resource, status=E.UPDATING, desired=desired)
    except Conflict:
        return False
    return True


def wanted(call: Call[SageMaker], config_name: str) -> Deployment:
    """Return a new deployment of a configuration, with copies of all that it names."""
    config = find(call, ENDPOINT_CONFIG, config_name)
    request = config.desired["Request"]
    return Deployment(
        id=call.request_id.replace("-", "")[:12],
        config=config.name,
        variants=tuple(variant(call, given, request) for given in request["ProductionVariants"]),
    )


def variant(call: Call[SageMaker], given: Request, config: Request) -> Variant:
    """Return a production variant of a configuration, with what its model says."""
    model = find(call, MODEL, given["ModelName"])
    request = model.desired["Request"]
    container = request.get("PrimaryContainer") or request["Containers"][0]
    uri, archived = artifacts(container)
    optional = {
        "startup_timeout_s": given.get("ContainerStartupHealthCheckTimeoutInSeconds"),
        "download_timeout_s": given.get("ModelDataDownloadTimeoutInSeconds"),
        "volume_gb": given.get("VolumeSizeInGB"),
    }
    return Variant(
        name=given["VariantName"],
        model=model.name,
        image=container["Image"],
        model_data=uri,
        archived=archived,
        environment=container.get("Environment", {}),
        role_arn=request["ExecutionRoleArn"],
        network_isolation=request["EnableNetworkIsolation"]
        or config.get("EnableNetworkIsolation", False),
        instance_type=given["InstanceType"],
        count=given["InitialInstanceCount"],
        weight=given["InitialVariantWeight"],
        no_effect=tuple(in_serving(request, config, given)),
        **{name: number for name, number in optional.items() if number is not None},
    )


def retained(new: Deployment, old: Deployment, names: Any) -> Deployment:
    """Return the new deployment with counts or weights as they are now, where a variant stays."""
    now = {variant.name: variant for variant in old.variants}
    variants = tuple(
        v.replace(**{name: getattr(now[v.name], name) for name in names}) if v.name in now else v
        for v in new.variants
    )
    return new.replace(variants=variants)


def described(
    deployment: Deployment, of: Variant, status: str, waiting: str | None
) -> dict[str, Any]:
    """Return a variant as DescribeEndpoint gives it, with what its replicas wait for."""
    replicas = deployment.of(of.name)
    ready = [replica for replica in replicas if replica.ready_ms is not None]
    first = min((replica.created_ms for replica in replicas), default=None)
    image: dict[str, Any] = {"SpecifiedImage": of.image, "ResolvedImage": of.image}
    if first is not None:
        image["ResolutionTime"] = from_ms(first)
    waits = [replica.created_ms for replica in replicas if replica.launched_ms is None]
    more: dict[str, Any] = {}
    if waiting is not None and waits:
        what = {"Status": status, "StatusMessage": f"Waiting for capacity: {waiting}"[:MAX_REASON]}
        more["VariantStatus"] = [what | {"StartTime": from_ms(min(waits))}]
    return more | {
        "VariantName": of.name,
        "DeployedImages": [image],
        "CurrentWeight": of.weight,
        "DesiredWeight": of.weight,
        "CurrentInstanceCount": len(ready),
        "DesiredInstanceCount": of.count,
    }


def started(found: Endpoint) -> datetime:
    """Return since when the coming deployment has been coming."""
    coming = found.state.coming
    first = [replica.created_ms for replica in coming.replicas] if coming else []
    return from_ms(min(first)) if first else found.resource.modified


def summary(resource: Resource) -> dict[str, Any]:
    """Return an endpoint as lists show it."""
    return {
        "EndpointName": resource.name,
        "EndpointArn": resource.arn,
        "CreationTime": resource.created,
        "LastModifiedTime": resource.modified,
        "EndpointStatus": resource.status,
    }
