"""Instances that are none, and more than one job or endpoint may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import IMAGE, Trainer

from cloche.services.sagemaker.quotas import MOST_INSTANCES
from cloche.testing.platform import Platform

REST = (
    " Please use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas "
    "is not available, contact AWS support to request an increase for this quota."
)


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Return code and text of the error that the call is answered with."""
    with pytest.raises(ClientError) as error:
        call()
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def limit(name: str, delta: int) -> tuple[str, str]:
    """Return the refusal of so many instances, where there are none yet."""
    return "ResourceLimitExceeded", (
        f"The account-level service limit '{name}' is 16 Instances, with current utilization of 0 "
        f"Instances and a request delta of {delta} Instances.{REST}"
    )


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (
            {"InstanceType": "ml.m5.large", "InstanceCount": 0},
            (
                "ValidationException",
                "ResourceConfig.InstanceCount must be at least 1 without InstanceGroups; it is 0.",
            ),
        ),
        (
            {"InstanceType": "ml.m5.large", "InstanceCount": 500},
            limit("ml.m5.large for training job usage", 500),
        ),
        (
            {"InstanceType": "ml.m5.large", "InstanceCount": 2_000_000_000},
            limit("ml.m5.large for training job usage", 2_000_000_000),
        ),
        (
            {
                "InstanceGroups": [
                    {"InstanceGroupName": name, "InstanceType": of, "InstanceCount": 9}
                    for name, of in (("a", "ml.m5.large"), ("b", "ml.c5.xlarge"))
                ]
            },
            limit("Maximum number of instances per training job", 18),
        ),
    ],
)
def test_instances_of_a_training_job(
    trainer: Trainer, resources: dict[str, Any], told: tuple[str, str]
) -> None:
    request = trainer.request("pass") | {"ResourceConfig": {"VolumeSizeInGB": 1, **resources}}
    assert refusal(lambda: trainer.sagemaker.create_training_job(**request)) == told


def test_instances_of_a_tuning_job(trainer: Trainer) -> None:
    request = trainer.request("pass")
    metrics = [{"Name": "loss", "Regex": "loss=(.*)"}]
    definition = {
        "StaticHyperParameters": request["HyperParameters"],
        "AlgorithmSpecification": request["AlgorithmSpecification"]
        | {"MetricDefinitions": metrics},
        "ResourceConfig": request["ResourceConfig"] | {"InstanceCount": 17},
    } | {name: request[name] for name in ("RoleArn", "OutputDataConfig", "StoppingCondition")}
    one = {"Name": "x", "MinValue": "0", "MaxValue": "1"}
    config = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
        "ParameterRanges": {"ContinuousParameterRanges": [one]},
    }
    assert refusal(
        lambda: trainer.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="many",
            HyperParameterTuningJobConfig=config,
            TrainingJobDefinition=definition,
        )
    ) == limit("ml.m5.large for training job usage", 17)


def test_instances_of_an_endpoint(trainer: Trainer) -> None:
    """As on AWS the configuration is kept; an endpoint with it is refused."""
    sagemaker = trainer.sagemaker
    sagemaker.create_model(
        ModelName="m", ExecutionRoleArn=trainer.role, PrimaryContainer={"Image": IMAGE}
    )
    for name, counts in (("many", [MOST_INSTANCES + 1]), ("sum", [9, 9]), ("few", [1])):
        types = ("ml.m5.large", "ml.c5.xlarge")
        variants = [
            {
                "VariantName": f"v{number}",
                "ModelName": "m",
                "InstanceType": types[number],
                "InitialInstanceCount": count,
            }
            for number, count in enumerate(counts)
        ]
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    for config, told in (
        ("many", limit("ml.m5.large for endpoint usage", 17)),
        ("sum", limit("Maximum number of instances per endpoint", 18)),
    ):
        assert told == refusal(
            lambda config=config: sagemaker.create_endpoint(  # type: ignore[misc]
                EndpointName="e", EndpointConfigName=config
            )
        )
