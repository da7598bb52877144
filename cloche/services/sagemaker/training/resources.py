"""The instances that a training job asks for: one type, or groups of several."""

from __future__ import annotations

from collections.abc import Sequence

from cloche.core.errors import AwsError, unsupported
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.software.instance_types import CPU_TYPES, stands_in

ALONE = ("InstanceType", "InstanceCount")  # what InstanceGroups take the place of


def check_types(resources: Request, gpu_instances: str = "cpu") -> Request:
    """Return ResourceConfig with its defaults when its instances are ones that can be had.

    gpu_instances: what becomes of types with GPUs (`Config`).
    """
    groups: Sequence[Request] = resources.get("InstanceGroups") or ()
    if groups:
        return check_groups(resources, groups, gpu_instances)
    if not resources.get("InstanceType"):
        raise AwsError("ValidationException", "ResourceConfig.InstanceType is required.")
    check_type(resources["InstanceType"], gpu_instances)
    if resources.get("InstanceCount", 1) < 1:
        raise AwsError(
            "ValidationException",
            "ResourceConfig.InstanceCount must be at least 1 without InstanceGroups; it is "
            f"{resources['InstanceCount']}.",
        )
    kept = {name: value for name, value in resources.items() if name != "InstanceGroups"}
    return {"InstanceCount": 1, "VolumeSizeInGB": 30} | kept


def check_groups(resources: Request, groups: Sequence[Request], gpu_instances: str) -> Request:
    """Return a ResourceConfig of several groups; each needs a name of its own and an instance."""
    both = [name for name in ALONE if resources.get(name)]
    if both:
        raise AwsError(
            "ValidationException",
            f"ResourceConfig has InstanceGroups and {' and '.join(both)}: only one of them can "
            "define the instances.",
        )
    names = [group["InstanceGroupName"] for group in groups]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise AwsError(
            "ValidationException",
            f"The names of InstanceGroups must be unique; repeated: {', '.join(repeated)}.",
        )
    empty = [group["InstanceGroupName"] for group in groups if group["InstanceCount"] < 1]
    if empty:
        raise AwsError(
            "ValidationException",
            f"InstanceCount must be at least 1; it is less in: {', '.join(empty)}.",
        )
    for group in groups:
        check_type(group["InstanceType"], gpu_instances)
    return {"VolumeSizeInGB": 30} | dict(resources)


def check_type(name: str, gpu_instances: str) -> None:
    """Refuse an instance type that this machine can't stand in for."""
    if not stands_in(name, gpu_instances):
        families = sorted({name.split(".")[1] for name in CPU_TYPES})
        raise unsupported(
            f"the instance type {name}",
            f"This machine stands in for CPU instances: ml.[{'|'.join(families)}].*.",
        )


def check_group_names(channels: Sequence[Request], resources: Request) -> None:
    """Refuse channels for groups that the job does not have."""
    known = [group["InstanceGroupName"] for group in resources.get("InstanceGroups") or ()]
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource") or {}
        unknown = [name for name in source.get("InstanceGroupNames") or () if name not in known]
        if unknown:
            raise AwsError(
                "ValidationException",
                f"Channel {channel['ChannelName']} names instance groups that ResourceConfig "
                f"lacks: {', '.join(unknown)}. It has: {', '.join(known) or 'none'}.",
            )
