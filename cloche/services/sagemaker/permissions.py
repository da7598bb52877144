"""What SageMaker's operations ask of IAM.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloche.core.arn import Arn
from cloche.core.authorization import Values
from cloche.operation import Call
from cloche.permissions import (
    REQUEST_TAGS,
    ConditionKeys,
    Find,
    Parameters,
    Permission,
    arn,
    constant,
    key,
    list_key,
    tag_keys,
)
from cloche.services.sagemaker.tags import tag_list, tags_of


def resource_tags(call: Call[Any], _parameters: Parameters, arn: str) -> Mapping[str, Values]:
    """Return the tags that a resource has."""
    resource = call.store.find(arn)
    tags = tag_list(tags_of(resource)) if resource is not None else ()
    return {**tag_keys(tags, "aws:resourcetag"), **tag_keys(tags, "sagemaker:resourcetag")}


def kms_arn(call: Call[Any], given: str) -> str:
    """Return the ARN of a KMS key that is given by its id, alias or ARN."""
    if given.startswith("arn:"):
        return given
    name = given if given.startswith("alias/") else f"key/{given}"
    return str(Arn("kms", call.region, call.account, name))


def model_arn(call: Call[Any], name: str) -> str:
    """Return the ARN of a model."""
    return arn("sagemaker", call, f"model/{name}")


def kms_keys(name: str, *paths: str) -> tuple[ConditionKeys, ...]:
    """Return the condition key of a KMS key under its name of today, and its deprecated one."""
    return (
        key(f"sagemaker:{name}Arn", *paths, convert=kms_arn),
        key(f"sagemaker:{name}", *paths, convert=kms_arn),
    )


def job_keys(*folders: str) -> tuple[ConditionKeys, ...]:
    """Return what is asked of a training job that is described in these structures (`A.`)."""

    def at(path: str) -> list[str]:
        return [folder + path for folder in folders]

    files = "InputDataConfig.DataSource.FileSystemDataSource"
    return (
        *kms_keys("OutputKmsKey", *at("OutputDataConfig.KmsKeyId")),
        *kms_keys("VolumeKmsKey", *at("ResourceConfig.VolumeKmsKeyId")),
        *network_keys(*folders),
        key("sagemaker:FileSystemAccessMode", *at(f"{files}.FileSystemAccessMode")),
        key("sagemaker:FileSystemDirectoryPath", *at(f"{files}.DirectoryPath")),
        key("sagemaker:FileSystemId", *at(f"{files}.FileSystemId")),
        key("sagemaker:FileSystemType", *at(f"{files}.FileSystemType")),
        key(
            "sagemaker:InterContainerTrafficEncryption",
            *at("EnableInterContainerTrafficEncryption"),
        ),
        key("sagemaker:MaxRuntimeInSeconds", *at("StoppingCondition.MaxRuntimeInSeconds")),
    )


def network_keys(*folders: str) -> tuple[ConditionKeys, ...]:
    """Return what is asked of the network that is described in these structures (`A.`)."""
    return (
        list_key("sagemaker:VpcSubnets", *(f"{each}VpcConfig.Subnets" for each in folders)),
        list_key(
            "sagemaker:VpcSecurityGroupIds",
            *(f"{each}VpcConfig.SecurityGroupIds" for each in folders),
        ),
        key("sagemaker:NetworkIsolation", *(f"{each}EnableNetworkIsolation" for each in folders)),
    )


def creation(action: str, resource: str, *keys: ConditionKeys) -> tuple[Permission, ...]:
    """Return what making a resource asks: tags that it gets at once are one more question."""
    tagging = constant("sagemaker:TaggingAction", action.partition(":")[2])
    return (
        Permission(action, resource, keys=(REQUEST_TAGS, *keys)),
        Permission("sagemaker:AddTags", resource, keys=(REQUEST_TAGS, tagging), when="Tags"),
    )


def on_resource(
    action: str, *resources: str | Find, keys: Iterable[ConditionKeys] = ()
) -> Permission:
    """Return a permission on resources that are there already."""
    return Permission(action, *resources, keys=(RESOURCE_TAGS, *keys))


RESOURCE_TAGS = ConditionKeys(
    "aws:ResourceTag/${TagKey}", "sagemaker:ResourceTag/${TagKey}", values=resource_tags
)
REMOTE_DEBUG = key("sagemaker:EnableRemoteDebug", "RemoteDebugConfig.EnableRemoteDebug")
KEEP_ALIVE = key("sagemaker:KeepAlivePeriod", "ResourceConfig.KeepAlivePeriodInSeconds")
