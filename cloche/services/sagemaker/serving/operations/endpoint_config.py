"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core import executors
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.permissions import Permission, list_key
from cloche.records.store import Conflict, Resource
from cloche.services.sagemaker.named_resources import find, insert, listed, refuse_others
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.permissions import (
    creation,
    kms_keys,
    model_arn,
    network_keys,
    on_resource,
)
from cloche.services.sagemaker.serving.record import ENDPOINT_CONFIG, MODEL
from cloche.services.sagemaker.software.instance_types import stands_in

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

VARIANT = (
    "VariantName",
    "ModelName",
    "InitialInstanceCount",
    "InstanceType",
    "InitialVariantWeight",
    "ModelDataDownloadTimeoutInSeconds",
    "ContainerStartupHealthCheckTimeoutInSeconds",
    "VolumeSizeInGB",
    "RoutingConfig",
    "InferenceAmiVersion",
)
CONFIG = "endpoint-config/{EndpointConfigName}"
CREATE = creation(
    "sagemaker:CreateEndpointConfig",
    CONFIG,
    list_key("sagemaker:InstanceTypes", "ProductionVariants.InstanceType"),
    list_key("sagemaker:ModelArn", "ProductionVariants.ModelName", convert=model_arn),
    *kms_keys("VolumeKmsKey", "KmsKeyId"),
    *network_keys(""),
)


@operation(permissions=CREATE)
async def create_endpoint_config(
    call: Call[SageMaker],
    *,
    EndpointConfigName: str,
    ProductionVariants: Sequence[Request],
    DataCaptureConfig: Request | None = None,
    Tags: Sequence[Mapping[str, str]] = (),
    KmsKeyId: str | None = None,
    VpcConfig: Request | None = None,
    EnableNetworkIsolation: bool = False,
) -> dict[str, str]:
    """Keep which models are to be served, on which instances, with which shares."""
    if DataCaptureConfig is not None and DataCaptureConfig.get("EnableCapture", True):
        raise unsupported("DataCaptureConfig (data capture)")
    names = [variant["VariantName"] for variant in ProductionVariants]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise AwsError(
            "ValidationException", f"Variant names must be unique. Found duplicates: {repeated}"
        )
    for variant in ProductionVariants:
        check_variant(call, variant)
    variants = [{"InitialVariantWeight": 1.0} | dict(v) for v in ProductionVariants]
    if not any(variant["InitialVariantWeight"] for variant in variants):
        raise AwsError(
            "ValidationException", "At least one production variant must have a weight above 0."
        )
    request: dict[str, Any] = {
        "ProductionVariants": variants,
        "EnableNetworkIsolation": EnableNetworkIsolation,
    }
    more = {"KmsKeyId": KmsKeyId, "VpcConfig": VpcConfig}
    request |= {name: value for name, value in more.items() if value}
    where = await insert(call, ENDPOINT_CONFIG, EndpointConfigName, request, Tags)
    return {"EndpointConfigArn": where}


@operation(permissions=[on_resource("sagemaker:DescribeEndpointConfig", CONFIG)])
def describe_endpoint_config(call: Call[SageMaker], *, EndpointConfigName: str) -> dict[str, Any]:
    """Return what CreateEndpointConfig was given."""
    resource = find(call, ENDPOINT_CONFIG, EndpointConfigName)
    kept = {"EnableNetworkIsolation": False} | dict(resource.desired["Request"])
    return kept | {
        "EndpointConfigName": resource.name,
        "EndpointConfigArn": resource.arn,
        "CreationTime": resource.created,
    }


@operation(permissions=[Permission("sagemaker:ListEndpointConfigs")], on=executors.RECORDS)
def list_endpoint_configs(
    call: Call[SageMaker],
    *,
    SortBy: str = "CreationTime",
    SortOrder: str = "Descending",
    NextToken: str | None = None,
    MaxResults: int = 10,
    NameContains: str | None = None,
    CreationTimeBefore: datetime | None = None,
    CreationTimeAfter: datetime | None = None,
) -> dict[str, Any]:
    """Return a page of summaries."""
    return listed(
        call,
        ENDPOINT_CONFIG,
        summary,
        "EndpointConfigs",
        name_contains=NameContains,
        created=(CreationTimeAfter, CreationTimeBefore),
        sort_by=SortBy,
        order=SortOrder,
        limit=MaxResults,
        after=NextToken,
    )


@operation(permissions=[on_resource("sagemaker:DeleteEndpointConfig", CONFIG)])
async def delete_endpoint_config(call: Call[SageMaker], *, EndpointConfigName: str) -> None:
    """Remove the record; an endpoint that uses it goes on (it keeps a copy of its own)."""
    while True:
        try:
            await call.store.delete(find(call, ENDPOINT_CONFIG, EndpointConfigName))
        except Conflict:
            continue
        return


def check_variant(call: Call[SageMaker], variant: Request) -> None:
    """Refuse a variant that could not be served as asked."""
    if "ServerlessConfig" in variant:
        raise unsupported("ServerlessConfig (serverless inference)", "Specify an InstanceType.")
    refuse_others(variant, VARIANT, "ProductionVariant")
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", "LEAST_OUTSTANDING_REQUESTS")
    if strategy != "LEAST_OUTSTANDING_REQUESTS":
        raise unsupported(f"RoutingStrategy {strategy}", "Use LEAST_OUTSTANDING_REQUESTS.")
    if "ModelName" not in variant:
        raise unsupported("ProductionVariants without ModelName (inference components)")
    for name in ("InstanceType", "InitialInstanceCount"):
        if name not in variant:
            raise AwsError("ValidationException", f"{name} is required for a ProductionVariant.")
    if not stands_in(variant["InstanceType"], call.service.config.gpu_instances):
        raise unsupported(f"InstanceType {variant['InstanceType']}")
    find(call, MODEL, variant["ModelName"])


def summary(resource: Resource) -> dict[str, Any]:
    """Return a configuration as lists show it."""
    return {
        "EndpointConfigName": resource.name,
        "EndpointConfigArn": resource.arn,
        "CreationTime": resource.created,
    }
