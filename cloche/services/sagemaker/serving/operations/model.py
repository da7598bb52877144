"""CreateModel, DescribeModel, ListModels, DeleteModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core import executors
from cloche.core.errors import AwsError, unsupported
from cloche.operation import Call, operation
from cloche.permissions import PassRole, Permission
from cloche.records.store import Conflict, Resource
from cloche.services.sagemaker.named_resources import find, insert, listed, refuse_others
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.permissions import creation, network_keys, on_resource
from cloche.services.sagemaker.roles import check_role
from cloche.services.sagemaker.s3_objects import split_uri
from cloche.services.sagemaker.serving.record import MODEL
from cloche.services.sagemaker.software.images import framework_of

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

CONTAINER = (
    *("ContainerHostname", "Image", "ImageConfig", "ModelDataUrl", "ModelDataSource"),
    "Environment",
)
S3_SOURCE = ("S3Uri", "S3DataType", "CompressionType")
KINDS = {("S3Object", "Gzip"), ("S3Prefix", "None")}  # (S3DataType, CompressionType) that work
NO_ACCESS = (
    'Could not access model data at {uri}. Please ensure that the role "{role}" exists and that '
    'its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
    '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that '
    "the object is located in {region}. If your Model uses multiple models or uncompressed models, "
    'please ensure that the role has "s3:ListBucket" permission.'
)
RESOURCE = "model/{ModelName}"
CREATE = (
    *creation("sagemaker:CreateModel", RESOURCE, *network_keys("")),
    PassRole("ExecutionRoleArn"),
)


@operation(permissions=CREATE)
async def create_model(
    call: Call[SageMaker],
    *,
    ModelName: str,
    PrimaryContainer: Request | None = None,
    Containers: Sequence[Request] = (),
    ExecutionRoleArn: str | None = None,
    Tags: Sequence[Mapping[str, str]] = (),
    VpcConfig: Request | None = None,
    EnableNetworkIsolation: bool = False,
) -> dict[str, str]:
    """Keep what a model consists of: image, artifacts, environment, role."""
    if (PrimaryContainer is None) == (not Containers):
        raise AwsError(
            "ValidationException",
            "You must provide either a primary container or a list of containers, but not both.",
        )
    if len(Containers) > 1:
        raise unsupported("Containers with more than one container (inference pipelines)")
    container = PrimaryContainer if PrimaryContainer is not None else Containers[0]
    check_container(call, container)
    if ExecutionRoleArn is None:
        raise AwsError(
            "ValidationException",
            "1 validation error detected: Value null at 'executionRoleArn' failed to satisfy "
            "constraint: Member must not be null",
        )
    check_role(ExecutionRoleArn, call.service, call.account)
    check_data(call, container, ExecutionRoleArn)
    request: dict[str, Any] = {
        "ExecutionRoleArn": ExecutionRoleArn,
        "EnableNetworkIsolation": EnableNetworkIsolation,
    }
    if VpcConfig:
        request["VpcConfig"] = VpcConfig
    if PrimaryContainer is not None:
        request["PrimaryContainer"] = PrimaryContainer
    else:
        request["Containers"] = list(Containers)
    return {"ModelArn": await insert(call, MODEL, ModelName, request, Tags)}


@operation(permissions=[on_resource("sagemaker:DescribeModel", RESOURCE)])
def describe_model(call: Call[SageMaker], *, ModelName: str) -> dict[str, Any]:
    """Return what CreateModel was given, `Mode` and a `ModelDataSource` filled in."""
    resource = find(call, MODEL, ModelName)
    request: dict[str, Any] = dict(resource.desired["Request"])
    if "PrimaryContainer" in request:
        request["PrimaryContainer"] = described(request["PrimaryContainer"])
    else:
        request["Containers"] = [described(container) for container in request["Containers"]]
    return request | {
        "ModelName": resource.name,
        "ModelArn": resource.arn,
        "CreationTime": resource.created,
    }


@operation(permissions=[Permission("sagemaker:ListModels")], on=executors.RECORDS)
def list_models(
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
        MODEL,
        summary,
        "Models",
        name_contains=NameContains,
        created=(CreationTimeAfter, CreationTimeBefore),
        sort_by=SortBy,
        order=SortOrder,
        limit=MaxResults,
        after=NextToken,
    )


@operation(permissions=[on_resource("sagemaker:DeleteModel", RESOURCE)])
async def delete_model(call: Call[SageMaker], *, ModelName: str) -> None:
    """Remove the record; endpoints that serve the model go on, and its artifacts stay in S3."""
    while True:
        try:
            await call.store.delete(find(call, MODEL, ModelName))
        except Conflict:
            continue
        return


def check_container(call: Call[SageMaker], container: Request) -> None:
    """Refuse a container that could not be served as asked."""
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise unsupported("Mode MultiModel (multi-model endpoints)")
    refuse_others(container, (*CONTAINER, "Mode", "ImageConfig"), "ContainerDefinition")
    if "Image" not in container:
        raise AwsError(
            "ValidationException",
            "You must provide an Image or a ModelPackageName for the container.",
        )
    framework_of(container["Image"], call.service.config.home)
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise AwsError(
            "ValidationException",
            "Specify either ModelDataUrl or ModelDataSource for a container, but not both.",
        )
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source is not None:
        refuse_others(source, S3_SOURCE, "S3DataSource")
        if (source["S3DataType"], source["CompressionType"]) not in KINDS:
            raise unsupported(
                f"S3DataType {source['S3DataType']} with CompressionType "
                f"{source['CompressionType']}",
                "Use S3Object with Gzip, or S3Prefix with None.",
            )


def check_data(call: Call[SageMaker], container: Request, role_arn: str) -> None:
    """Refuse artifacts that are not there, or that the role may not read, as CreateModel does."""
    uri, archived = artifacts(container)
    if uri is None:
        return
    bucket, key = split_uri(uri)
    if call.service.sources.is_outside(bucket):
        return  # the endpoint finds out, when it reads it
    s3 = call.service.s3_as(role_arn)
    try:
        found = s3.find(bucket, key) is not None if archived else next(s3.list(bucket, key), None)
    except AwsError as error:
        text = NO_ACCESS.format(uri=uri, role=role_arn, region=call.region)
        raise AwsError("ValidationException", text) from error
    if not found:
        raise AwsError("ValidationException", f"Could not find model data at {uri}.")


def artifacts(container: Request) -> tuple[str | None, bool]:
    """Return the S3 URI of a container's artifacts, and whether it is an archive."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source is not None:
        return source["S3Uri"], source["CompressionType"] == "Gzip"
    return container.get("ModelDataUrl") or None, True


def described(container: Request) -> Request:
    """Return a container as DescribeModel gives it."""
    shown: dict[str, Any] = {"Mode": "SingleModel", "Environment": {}} | dict(container)
    if "ModelDataUrl" in container:
        shown["ModelDataSource"] = {
            "S3DataSource": {
                "S3Uri": container["ModelDataUrl"],
                "S3DataType": "S3Object",
                "CompressionType": "Gzip",
            }
        }
    return shown


def summary(resource: Resource) -> dict[str, Any]:
    """Return a model as lists show it."""
    return {
        "ModelName": resource.name,
        "ModelArn": resource.arn,
        "CreationTime": resource.created,
    }
