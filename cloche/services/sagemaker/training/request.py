"""What CreateTrainingJob accepts, and with which words it refuses the rest.

botocore's model was checked before (types, enums, lengths, patterns); here is what it can't say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloche import patterns
from cloche.core.config import Home
from cloche.core.errors import AwsError, unsupported
from cloche.patterns import BadPattern
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.roles import check_role
from cloche.services.sagemaker.s3_objects import split_uri
from cloche.services.sagemaker.software.images import built_in, framework_of
from cloche.services.sagemaker.training import attempts, checkpoints, launchers
from cloche.services.sagemaker.training.debugger.rules import KINDS
from cloche.services.sagemaker.training.quotas import check_training
from cloche.services.sagemaker.training.resources import check_group_names, check_types
from cloche.services.sagemaker.training.warm_pools import decide as warm_pools

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

DAY_S = 86_400  # the default of MaxRuntimeInSeconds (API_StoppingCondition)

UNKNOWN_RESOURCES = (
    "TrainingPlanArn",
    "InstancePlacementConfig",
    "InstancePreferences",
)
SWITCHES = {  # members that may be sent switched off
    "RemoteDebugConfig": "EnableRemoteDebug",
    "InfraCheckConfig": "EnableInfraCheck",
    "SessionChainingConfig": "EnableSessionTagChaining",
}


def validated(given: Mapping[str, Any], sagemaker: SageMaker, account: str, region: str) -> Request:
    """Return the request as it is kept, defaults filled in; an AwsError says what is wrong."""
    for name, switch in SWITCHES.items():
        if (given[name] or {}).get(switch):
            raise unsupported(f"{name}.{switch}")
    algorithm = check_algorithm(given["AlgorithmSpecification"], sagemaker.config.home)
    check_role(given["RoleArn"], sagemaker, account)
    check_rules(given)
    launchers.check(given["HyperParameters"])
    check_script(algorithm, given, sagemaker.config.home)
    check_output(given["OutputDataConfig"])
    checkpoints.checked(given)
    check_channels(given["InputDataConfig"], algorithm["TrainingInputMode"])
    check_group_names(given["InputDataConfig"], given["ResourceConfig"] or {})
    for channel in given["InputDataConfig"]:
        check_objects(channel["DataSource"]["S3DataSource"], sagemaker, region, given["RoleArn"])
    request = with_defaults(given, sagemaker.config.gpu_instances)
    check_training(request["ResourceConfig"], sagemaker.store, (account, region))
    return request


def with_defaults(given: Mapping[str, Any], gpu_instances: str = "cpu") -> Request:
    """Return a request that was found valid as it is kept, defaults filled in.

    gpu_instances: whether types with GPUs are refused (`Config`); those of a search's trials were
    looked at when it was made.
    """
    request = {name: value for name, value in given.items() if value is not None}
    spot = bool(given["EnableManagedSpotTraining"])
    request["ResourceConfig"] = check_resources(given["ResourceConfig"], spot, gpu_instances)
    request["StoppingCondition"] = check_stopping(given["StoppingCondition"] or {}, spot)
    for name in (*SWITCHES, *KINDS, *checkpoints.CONFIGS, "ExperimentConfig"):
        if not request.get(name):
            request.pop(name, None)
    return request


def check_algorithm(algorithm: Request | None, home: Home) -> Request:
    """Return AlgorithmSpecification when its image and mode are ones that can run."""
    if not algorithm or not (algorithm.get("TrainingImage") or algorithm.get("AlgorithmName")):
        raise AwsError(
            "ValidationException",
            "You must specify either AlgorithmName or TrainingImage in AlgorithmSpecification.",
        )
    if algorithm.get("AlgorithmName"):
        raise unsupported("AlgorithmSpecification.AlgorithmName", "Specify a TrainingImage.")
    if algorithm.get("ContainerArguments") and not algorithm.get("ContainerEntrypoint"):
        raise unsupported(
            "AlgorithmSpecification.ContainerArguments without ContainerEntrypoint",
            "Specify the program as ContainerEntrypoint.",
        )
    check_mode(algorithm["TrainingInputMode"], "AlgorithmSpecification.TrainingInputMode")
    framework_of(algorithm["TrainingImage"], home)
    return algorithm


def check_script(algorithm: Request, given: Mapping[str, Any], home: Home) -> None:
    """Raise when no program is named and the image would then be a built-in algorithm."""
    framework = framework_of(algorithm["TrainingImage"], home)
    named = (
        "sagemaker_program" in (given["HyperParameters"] or {})
        or "SAGEMAKER_PROGRAM" in (given["Environment"] or {})
        or algorithm.get("ContainerEntrypoint")
    )
    if framework.algorithm and not named:
        raise built_in(framework.algorithm, algorithm["TrainingImage"])


async def check_expressions(*algorithms: Request) -> None:
    """Refuse metric definitions whose expressions are none, or capture nothing."""
    metrics = [each for one in algorithms for each in one.get("MetricDefinitions") or ()]
    found = await patterns.run(patterns.groups, [metric["Regex"] for metric in metrics])
    for metric, groups in zip(metrics, found, strict=True):
        if isinstance(groups, BadPattern):
            raise AwsError(
                "ValidationException",
                f"Invalid regular expression {metric['Regex']!r} of metric {metric['Name']}: "
                f"{groups}",
            )
        if groups == 0:
            raise AwsError(
                "ValidationException",
                f"The regular expression {metric['Regex']!r} of metric {metric['Name']} needs a "
                "group, in parentheses, that captures the value.",
            )


def check_mode(mode: str, where: str) -> None:
    """Refuse Pipe."""
    if mode == "Pipe":
        raise unsupported(f"{where} Pipe", "Use File or FastFile.")


def check_rules(given: Mapping[str, Any]) -> None:
    """Refuse rules that have the same name, and output that is not in S3."""
    for kind, config in KINDS.items():
        rules = given[kind] or ()
        names = [rule["RuleConfigurationName"] for rule in rules]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise AwsError(
                "ValidationException",
                f"The names of {kind} must be unique; these are repeated: {', '.join(repeated)}.",
            )
        for place in (given[config] or {}, *rules):
            if place.get("S3OutputPath"):
                split_uri(place["S3OutputPath"])


def check_output(output: Request) -> None:
    """Refuse a path that is not in S3."""
    split_uri(output["S3OutputPath"])


def check_channels(channels: Sequence[Request], default_mode: str) -> None:
    """Refuse channels that could not be presented as asked."""
    names = [channel["ChannelName"] for channel in channels]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise AwsError(
            "ValidationException",
            f"Channel names must be unique; these are repeated: {', '.join(sorted(repeated))}.",
        )
    for channel in channels:
        where = f"channel {channel['ChannelName']}:"
        check_mode(channel.get("InputMode", default_mode), f"{where} InputMode")
        for member, plain in (("CompressionType", "None"), ("RecordWrapperType", "None")):
            if channel.get(member, plain) != plain:
                raise unsupported(
                    f"{where} {member} {channel[member]}", "AWS has it for Pipe mode alone."
                )
        if channel.get("ShuffleConfig"):
            raise unsupported(f"{where} ShuffleConfig")
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            others = ", ".join(channel["DataSource"]) or "no data source"
            raise unsupported(f"{where} {others}", "Use S3DataSource.")
        if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise unsupported(f"{where} S3DataType {source['S3DataType']}")
        for member in ("AttributeNames", "ModelAccessConfig"):
            if source.get(member):
                raise unsupported(f"{where} S3DataSource.{member}")
        split_uri(source["S3Uri"])


def check_objects(source: Request, sagemaker: SageMaker, region: str, role_arn: str) -> None:
    """Refuse a data source beneath which nothing lies, as CreateTrainingJob does on AWS."""
    bucket, prefix = split_uri(source["S3Uri"])
    if sagemaker.sources.is_outside(bucket):
        return  # the job finds out, when it reads it
    try:
        listed = sagemaker.s3_as(role_arn).list(bucket, prefix)
        found = sagemaker.s3.bucket_exists(bucket) and any(True for _ in listed)
    except AwsError:
        found = False  # the role may not list it
    if not found:
        raise AwsError(
            "ValidationException",
            f'No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source. '
            f"Please ensure that the bucket exists in the selected region ({region}), that "
            f'objects exist under that S3 prefix, and that the role "{role_arn}" has '
            f'"s3:ListBucket" permissions on bucket "{bucket}".',
        )


def check_resources(resources: Request | None, spot: bool, gpu_instances: str) -> Request:
    """Return ResourceConfig with its defaults."""
    resources = resources or {}
    for name in UNKNOWN_RESOURCES:
        if resources.get(name):
            raise unsupported(f"ResourceConfig.{name}")
    warm_pools.check(resources, spot)
    return check_types(resources, gpu_instances)


def check_stopping(stopping: Request, spot: bool) -> Request:
    """Return StoppingCondition with its default."""
    attempts.check_stopping(stopping, spot, stopping.get("MaxRuntimeInSeconds", DAY_S))
    if stopping.get("MaxPendingTimeInSeconds"):
        raise unsupported("StoppingCondition.MaxPendingTimeInSeconds")
    return {"MaxRuntimeInSeconds": DAY_S} | dict(stopping)
