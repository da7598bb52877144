"""What CreateTrainingJob refuses, and with which words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer, channel

from cloche.testing.platform import Platform


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def refusal(trainer: Trainer, changes: dict[str, Any]) -> dict[str, str]:
    """Return the error for a request with these changes; a dotted name changes one member."""
    request = copy.deepcopy(trainer.request())
    for name, value in changes.items():
        *path, last = name.split(".")
        place = request
        for part in path:
            place = place[part]
        place[last] = value
    with pytest.raises(ClientError) as error:
        trainer.sagemaker.create_training_job(**request)
    answer = error.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert answer["Error"]["Code"] == "ValidationException"
    jobs = trainer.sagemaker.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    names = {job["TrainingJobName"] for job in jobs}
    assert request["TrainingJobName"] not in names, "what is refused leaves nothing behind"
    message: dict[str, str] = answer["Error"]
    return message


PREFIX = f"s3://{BUCKET}/in"
PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/p"
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"RemoteDebugConfig": {"EnableRemoteDebug": True}}, "RemoteDebugConfig.EnableRemoteDebug."),
    ({"InfraCheckConfig": {"EnableInfraCheck": True}}, "InfraCheckConfig.EnableInfraCheck."),
    ({"ResourceConfig.TrainingPlanArn": PLAN}, "ResourceConfig.TrainingPlanArn."),
    (
        {"AlgorithmSpecification.TrainingInputMode": "Pipe"},
        "AlgorithmSpecification.TrainingInputMode Pipe. Use File or FastFile.",
    ),
    (
        {"AlgorithmSpecification.ContainerArguments": ["x"]},
        "AlgorithmSpecification.ContainerArguments without ContainerEntrypoint.",
    ),
    (
        {"InputDataConfig": [channel("c", PREFIX, InputMode="Pipe")]},
        "channel c: InputMode Pipe. Use File or FastFile.",
    ),
    (
        {"InputDataConfig": [channel("c", PREFIX, CompressionType="Gzip")]},
        "channel c: CompressionType Gzip. AWS has it for Pipe mode alone.",
    ),
    (
        {"InputDataConfig": [channel("c", PREFIX, RecordWrapperType="RecordIO")]},
        "channel c: RecordWrapperType RecordIO. AWS has it for Pipe mode alone.",
    ),
    (
        {"InputDataConfig": [channel("c", PREFIX, ShuffleConfig={"Seed": 1})]},
        "channel c: ShuffleConfig.",
    ),
    (
        {"InputDataConfig": [channel("c", PREFIX, "AugmentedManifestFile")]},
        "channel c: S3DataType AugmentedManifestFile.",
    ),
]


@pytest.mark.parametrize(("changes", "what"), UNSUPPORTED, ids=lambda v: str(v)[:40])
def test_unsupported_features_are_refused_by_name(
    trainer: Trainer, changes: dict[str, Any], what: str
) -> None:
    assert refusal(trainer, changes)["Message"].startswith(f"Cloche does not support {what}")


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("sagemaker_distributed_dataparallel_enabled", "smdistributed.dataparallel"),
        ("sagemaker_parameter_server_enabled", "parameter_server"),
        ("sagemaker_pytorch_ddp_enabled", "pytorchddp"),
    ],
)
def test_launchers_are_refused_with_what_to_do(
    trainer: Trainer, name: str, distribution: str
) -> None:
    message = refusal(trainer, {f"HyperParameters.{name}": "true"})["Message"]
    assert message.startswith(f"Cloche does not support the distribution {distribution} ({name}).")
    assert "SM_HOSTS" in message and "gloo" in message and "torch_distributed" in message
    assert 'or Open MPI: distribution={"mpi": {"enabled": True}}.' in message


def test_model_parallel_is_refused_though_it_asks_for_mpi(trainer: Trainer) -> None:
    sent = {"HyperParameters.sagemaker_mpi_enabled": "true"}
    sent |= {"HyperParameters.mp_parameters": '{"partitions": 2}'}
    message = refusal(trainer, sent)["Message"]
    assert message.startswith("Cloche does not support the distribution smdistributed.modelparall")


@pytest.mark.parametrize("number", ["0", "two", "-1", "1.5", "[" * 5000])
def test_processes_that_are_no_number(trainer: Trainer, number: str) -> None:
    name = "sagemaker_mpi_num_of_processes_per_host"
    sent = {"HyperParameters.sagemaker_mpi_enabled": "true", f"HyperParameters.{name}": number[:99]}
    assert refusal(trainer, sent)["Message"] == (
        f"{name} must be a whole number above 0, not {number[:99]}."
    )


def test_unknown_image_is_named(trainer: Trainer) -> None:
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/mxnet-training:1.9"
    message = refusal(trainer, {"AlgorithmSpecification.TrainingImage": image})["Message"]
    assert message.startswith(f"Cloche does not support the image {image}. There are environments")
    assert "cloche image add mxnet-training --repository mxnet-training --package" in message


SCRIPT = "Train with a script of your own (entry_point): a framework's estimator, such as "
REGISTRY = "683313688378.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("repository", "algorithm"),
    [("sagemaker-xgboost:1.7-1", "XGBoost"), ("xgboost:1", "XGBoost"), ("kmeans:1", "K-Means")],
)
def test_built_in_algorithms_are_refused_by_name(
    trainer: Trainer, repository: str, algorithm: str
) -> None:
    image = f"{REGISTRY}/{repository}"
    changes = {
        "AlgorithmSpecification.TrainingImage": image,
        "HyperParameters": {"num_round": "2", "objective": "reg:squarederror"},
    }
    assert refusal(trainer, changes)["Message"] == (
        f"Cloche does not support SageMaker's built-in algorithm {algorithm} (the image {image}). "
        f"{SCRIPT}sagemaker.xgboost.XGBoost, names it as the hyperparameter sagemaker_program."
    )


def test_the_image_of_a_built_in_algorithm_takes_a_script(trainer: Trainer) -> None:
    """The control of what is refused above: it goes on to the next check."""
    changes = {
        "AlgorithmSpecification.TrainingImage": f"{REGISTRY}/sagemaker-xgboost:1.7-1",
        "HyperParameters": {"sagemaker_program": "train.py"},
        "ResourceConfig.TrainingPlanArn": PLAN,
    }
    assert "TrainingPlanArn" in refusal(trainer, changes)["Message"]


def test_instance_type_with_other_accelerators_is_named(trainer: Trainer) -> None:
    message = refusal(trainer, {"ResourceConfig.InstanceType": "ml.trn1.2xlarge"})["Message"]
    assert message.startswith("Cloche does not support the instance type ml.trn1.2xlarge.")


def test_role_that_is_not_there(trainer: Trainer) -> None:
    role = trainer.role.rsplit("/", 1)[0] + "/nobody"
    assert refusal(trainer, {"RoleArn": role})["Message"] == (
        f"Could not assume role {role}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


@pytest.mark.parametrize("uri", [f"s3://{BUCKET}/nothing/here", "s3://no-such-bucket-here/in"])
def test_input_that_is_not_there(trainer: Trainer, uri: str) -> None:
    bucket = uri.split("/")[2]
    assert refusal(trainer, {"InputDataConfig": [channel("c", uri)]})["Message"] == (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
        "the bucket exists in the selected region (us-east-1), that objects exist under that S3 "
        f'prefix, and that the role "{trainer.role}" has "s3:ListBucket" permissions on bucket '
        f'"{bucket}".'
    )


@pytest.mark.parametrize(
    ("regex", "says"), [("loss: (", "Invalid regular expression"), ("loss", "needs a group")]
)
def test_metric_that_can_not_be_read(trainer: Trainer, regex: str, says: str) -> None:
    metrics = [{"Name": "loss", "Regex": regex}]
    changes = {"AlgorithmSpecification.MetricDefinitions": metrics}
    message = refusal(trainer, changes)["Message"]
    assert says in message and repr(regex) in message


def test_other_mistakes(trainer: Trainer) -> None:
    assert refusal(trainer, {"AlgorithmSpecification": {"TrainingInputMode": "File"}})[
        "Message"
    ] == ("You must specify either AlgorithmName or TrainingImage in AlgorithmSpecification.")
    twice = [channel("c", PREFIX), channel("c", PREFIX)]
    assert "must be unique" in refusal(trainer, {"InputDataConfig": twice})["Message"]
    waiting = {"MaxRuntimeInSeconds": 5, "MaxWaitTimeInSeconds": 9}
    assert (
        "EnableManagedSpotTraining" in refusal(trainer, {"StoppingCondition": waiting})["Message"]
    )
    tags = [{"Key": "aws:x", "Value": "1"}]
    assert "aws: prefixed" in refusal(trainer, {"Tags": tags})["Message"]
    assert "pattern" in refusal(trainer, {"TrainingJobName": "a_b"})["Message"]


def test_defaults_and_what_the_sdk_always_sends(trainer: Trainer) -> None:
    request = trainer.request("pass") | {
        "DebugHookConfig": {"S3OutputPath": PREFIX, "CollectionConfigurations": []},
        "ProfilerConfig": {"S3OutputPath": PREFIX, "DisableProfiler": False},
        "EnableInterContainerTrafficEncryption": True,
        "RemoteDebugConfig": {"EnableRemoteDebug": False},
    }
    request.pop("StoppingCondition")
    request.pop("InputDataConfig")
    request["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] = True
    trainer.sagemaker.create_training_job(**request)
    job = trainer.ended(request["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed"
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert job["DebugHookConfig"] == request["DebugHookConfig"]
    assert job["ProfilerConfig"] == request["ProfilerConfig"]
    assert job["EnableInterContainerTrafficEncryption"] is True
    assert job["EnableManagedSpotTraining"] is False
    assert job["HyperParameters"] == request["HyperParameters"]


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("describe_training_job", {"TrainingJobName": "nothing"}),
        ("stop_training_job", {"TrainingJobName": "nothing"}),
        ("delete_training_job", {"TrainingJobName": "nothing"}),
    ],
)
def test_job_that_is_not_there(trainer: Trainer, operation: str, arguments: dict[str, str]) -> None:
    with pytest.raises(ClientError) as error:
        getattr(trainer.sagemaker, operation)(**arguments)
    assert error.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "Requested resource not found.",
    }


@pytest.mark.parametrize("arn", ["training-job/nothing", "model/x"])
def test_tags_of_what_is_not_there(trainer: Trainer, arn: str) -> None:
    account = trainer.role.split(":")[4]
    with pytest.raises(ClientError, match="Could not find resource"):
        trainer.sagemaker.list_tags(ResourceArn=f"arn:aws:sagemaker:us-east-1:{account}:{arn}")
