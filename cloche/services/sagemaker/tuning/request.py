"""What CreateHyperParameterTuningJob accepts, and with which words it refuses the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from cloche.core import numbers
from cloche.core.errors import AwsError, unsupported
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.training.record import OBJECTIVE
from cloche.services.sagemaker.training.request import validated
from cloche.services.sagemaker.training.warm_pools.decide import KEEP_ALIVE
from cloche.services.sagemaker.tuning.record import (
    TUNING_JOB,
    UNSETTLED_TUNING,
    TuningJob,
    tuning_job,
)
from cloche.services.sagemaker.tuning.space import Range, SearchSpace

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

RANGES = ("IntegerParameterRanges", "ContinuousParameterRanges", "CategoricalParameterRanges")
# Static hyperparameters that tell the number of epochs (API_HyperbandStrategyConfig).
EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
MOST_EPOCHS = 20_000
MOST_COMBINATIONS = 10_000  # of a grid
UNCOUNTED = 10**12
# Members of a definition that CreateTrainingJob has too, as it has them.
SHARED = (
    "RoleArn",
    "OutputDataConfig",
    "StoppingCondition",
    "Environment",
    "VpcConfig",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
)
# Those that only CreateTrainingJob has: a trial goes without.
WITHOUT = (
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "TensorBoardOutputConfig",
    "ExperimentConfig",
    "RemoteDebugConfig",
    "InfraCheckConfig",
    "SessionChainingConfig",
)


def checked_config(
    config: Request, definitions: Sequence[Request], several: bool, autotune: bool = False
) -> Request:
    """Return HyperParameterTuningJobConfig with its defaults; an AwsError says what is wrong."""
    checked: dict[str, Any] = {"TrainingJobEarlyStoppingType": "Off"} | dict(config)
    strategy = checked["Strategy"]
    automatic = (config.get("ParameterRanges") or {}).get("AutoParameters") or []
    if automatic and not autotune:
        raise invalid("ParameterRanges.AutoParameters is only for Autotune.")
    if several and (
        config.get("ParameterRanges") or config.get("HyperParameterTuningJobObjective")
    ):
        raise invalid(
            "With TrainingJobDefinitions, each definition has its own TuningObjective and "
            "HyperParameterRanges; leave them out of HyperParameterTuningJobConfig."
        )
    ranges = [each.get("HyperParameterRanges") or {} for each in definitions]
    if not several:
        checked["ParameterRanges"] = complete(ranges[0] or config.get("ParameterRanges") or {})
        ranges = [checked["ParameterRanges"]]
        if automatic:
            checked["ParameterRanges"] = {**ranges[0], "AutoParameters": automatic}
    spaces = [SearchSpace.parse(sent) for sent in ranges]
    if not all(space.ranges for space in spaces):
        raise invalid("A hyperparameter tuning job needs at least one hyperparameter range.")
    checked["ResourceLimits"] = checked_limits(config["ResourceLimits"], strategy, spaces)
    checked_strategy(checked, definitions)
    return checked


def complete(ranges: Request) -> Request:
    """Return ParameterRanges with all three lists, as the SDK 2.x expects them back."""
    return {name: list(ranges.get(name) or ()) for name in RANGES}


def checked_limits(limits: Request, strategy: str, spaces: Sequence[SearchSpace]) -> Request:
    """Return ResourceLimits; a grid's number of jobs is what it has combinations."""
    if strategy != "Grid":
        if "MaxNumberOfTrainingJobs" not in limits:
            raise invalid(
                f"MaxNumberOfTrainingJobs is required with the {strategy} tuning strategy."
            )
        return limits
    numeric = [r for space in spaces for r in space.ranges if r.kind != "Categorical"]
    if numeric:
        raise invalid(
            "Only categorical parameters are supported when using the Grid tuning strategy; "
            f"{numeric[0].name} is of type {numeric[0].kind}."
        )
    combinations = sum(prod(len(r.values) for r in space.ranges) for space in spaces)
    if combinations > MOST_COMBINATIONS:
        raise invalid(
            f"The grid has {shown(combinations)} combinations; Cloche tries "
            f"{MOST_COMBINATIONS} at the most."
        )
    asked = limits.get("MaxNumberOfTrainingJobs", combinations)
    if asked != combinations:
        raise invalid(
            f"With the Grid tuning strategy MaxNumberOfTrainingJobs must be the number of "
            f"combinations, {combinations}, or be left out; it is {asked}."
        )
    return {**limits, "MaxNumberOfTrainingJobs": combinations}


def shown(combinations: int) -> str:
    """Return a number of combinations; the greatest have more digits than anybody reads."""
    return str(combinations) if combinations < UNCOUNTED else f"more than {UNCOUNTED}"


def checked_strategy(config: dict[str, Any], definitions: Sequence[Request]) -> None:
    """Fill in and check StrategyConfig, which only Hyperband has."""
    sent = (config.get("StrategyConfig") or {}).get("HyperbandStrategyConfig")
    if config["Strategy"] != "Hyperband":
        if sent:
            raise invalid("HyperbandStrategyConfig is only for the Hyperband tuning strategy.")
        return
    if config["TrainingJobEarlyStoppingType"] != "Off":
        raise invalid("TrainingJobEarlyStoppingType must be OFF to use Hyperband.")
    most = (sent or {}).get("MaxResource") or epochs_of(definitions)
    least = (sent or {}).get("MinResource", 1)
    if most is None:
        raise invalid(
            "HyperbandStrategyConfig.MaxResource is missing and can't be inferred: none of "
            f"{', '.join(EPOCHS)} is in StaticHyperParameters."
        )
    if not least <= most <= MOST_EPOCHS:
        raise invalid(
            f"HyperbandStrategyConfig has MinResource {least} and MaxResource {most}: the first "
            f"must not exceed the second, and the second not {MOST_EPOCHS}."
        )
    config["StrategyConfig"] = {
        "HyperbandStrategyConfig": {"MinResource": least, "MaxResource": most}
    }


def epochs_of(definitions: Sequence[Request]) -> int | None:
    """Return the epochs that static hyperparameters tell."""
    for definition in definitions:
        static = definition.get("StaticHyperParameters") or {}
        for name in EPOCHS:
            try:
                return whole(static[name])
            except (KeyError, ValueError):
                continue
    return None


def whole(text: str) -> int:
    """Return a whole number that a hyperparameter spells, as the SDK's JSON (`"7"`) too."""
    return int(numbers.real(text.strip().strip('"')))


def checked_definition(
    sent: Request, config: Request, sagemaker: SageMaker, account: str, region: str
) -> Request:
    """Return a definition as it is kept; an AwsError as CreateTrainingJob would give it.

    StaticHyperParameters gain the name of the objective, which the SDK 2.x reads back, and
    ResourceConfig what HyperParameterTuningResourceConfig says.
    """
    definition = dict(sent)
    objective = definition.get("TuningObjective") or config.get("HyperParameterTuningJobObjective")
    algorithm = definition["AlgorithmSpecification"]
    metrics = [metric["Name"] for metric in algorithm.get("MetricDefinitions") or ()]
    if objective is None or objective["MetricName"] not in metrics:
        raise invalid(
            "A metric is required for this hyperparameter tuning job objective. "
            "Provide a metric in the metric definitions."
        )
    static = {**(definition.get("StaticHyperParameters") or {}), OBJECTIVE: objective["MetricName"]}
    ranges = SearchSpace.parse(
        definition.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    ).ranges
    if both := sorted(static.keys() & {each.name for each in ranges}):
        raise invalid(f"The hyperparameters {both} are both static and in a range.")
    definition["StaticHyperParameters"] = static
    definition["ResourceConfig"] = resource_config(definition)
    example = {each.name: example_of(each) for each in ranges}
    validated(training_request(definition, example), sagemaker, account, region)
    return definition


def example_of(each: Range) -> str:
    """Return some value of a range, to check a training job with."""
    return each.values[0] if each.kind == "Categorical" else each.to_text(each.low)


def resource_config(definition: Request) -> Request:
    """Return ResourceConfig, from whichever of the two members was sent."""
    newer = definition.get("HyperParameterTuningResourceConfig")
    if not newer:
        if not definition.get("ResourceConfig"):
            raise invalid(
                "A training job definition needs ResourceConfig or "
                "HyperParameterTuningResourceConfig."
            )
        # A tuning job keeps no warm pool; AWS drops the member too (it is not in its answers).
        own: Request = definition["ResourceConfig"]
        return {name: value for name, value in own.items() if name != KEEP_ALIVE}
    if newer.get("AllocationStrategy") or newer.get("InstanceConfigs"):
        raise unsupported(
            "HyperParameterTuningResourceConfig.InstanceConfigs", "Specify one InstanceType."
        )
    wanted = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    return {name: newer[name] for name in wanted if name in newer}


def training_request(definition: Request, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return what CreateTrainingJob is given for one trial."""
    request: dict[str, Any] = dict.fromkeys(WITHOUT)
    request |= {name: definition.get(name) for name in SHARED}
    for name in SHARED:
        if name.startswith("Enable"):
            request[name] = bool(request[name])
    return request | {
        "HyperParameters": {**definition["StaticHyperParameters"], **parameters},
        "AlgorithmSpecification": definition["AlgorithmSpecification"],
        "InputDataConfig": list(definition.get("InputDataConfig") or ()),
        "ResourceConfig": definition["ResourceConfig"],
    }


def parents(
    warm_start: Request | None,
    definitions: Sequence[Request],
    config: Request,
    sagemaker: SageMaker,
    place: tuple[str, str],
) -> Sequence[TuningJob]:
    """Return the tuning jobs that a warm start names; an AwsError when one can't be a parent.

    place: account and region. Rules: API_HyperParameterTuningJobWarmStartConfig.
    """
    found: list[TuningJob] = []
    for named in (warm_start or {}).get("ParentHyperParameterTuningJobs", ()):
        name = named.get("HyperParameterTuningJobName", "")
        resource = sagemaker.store.get(TUNING_JOB, *place, name)
        if resource is None:
            raise missing(name)
        parent = tuning_job(resource)
        if parent.status in UNSETTLED_TUNING:
            raise invalid(
                f"The parent tuning job {name} is in status {parent.status}; only a tuning job "
                "that has ended can be a parent."
            )
        check_parent(parent, definitions, config)
        found.append(parent)
    return found


def check_parent(parent: TuningJob, definitions: Sequence[Request], config: Request) -> None:
    """Refuse a parent with another objective or another number of hyperparameters."""
    if len(definitions) > 1 or len(parent.definitions) > 1:
        raise unsupported("WarmStartConfig with several training job definitions")
    ((name, theirs),) = parent.definitions.items()
    mine = definitions[0].get("TuningObjective") or config.get("HyperParameterTuningJobObjective")
    if parent.objective(name) != mine:
        raise invalid(
            f"The objective of the tuning job, {mine}, must be the same as that of its parent "
            f"{parent.resource.name}, {parent.objective(name)}."
        )
    counts = [
        len(definition["StaticHyperParameters"]) + len(SearchSpace.parse(ranges).ranges)
        for definition, ranges in (
            (
                definitions[0],
                definitions[0].get("HyperParameterRanges") or config["ParameterRanges"],
            ),
            (theirs, parent.ranges(name)),
        )
    ]
    if counts[0] != counts[1]:
        raise invalid(
            "The total number of static plus tunable hyperparameters must remain the same as in "
            f"all parent jobs: it is {counts[0]}, and {counts[1]} in {parent.resource.name}."
        )


def missing(name: str) -> AwsError:
    """Return AWS's words for a tuning job that is not there."""
    return AwsError(
        "ResourceNotFound",
        f"Amazon SageMaker can't find a tuning job called {name}. Type another name.",
    )


def invalid(message: str) -> AwsError:
    """Return a refusal."""
    return AwsError("ValidationException", message)
