"""Instance types with GPUs run on the CPUs, and settings that change nothing here are kept."""

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from serving_client import Serving
from tuning_client import OBJECTIVE, Tuner

from cloche.services.sagemaker.software.instance_types import INSTANCE_TYPES
from cloche.testing.platform import Platform, start

SCRIPT = """
import os
for name in ("SM_NUM_GPUS", "CUDA_VISIBLE_DEVICES", "SM_CURRENT_INSTANCE_TYPE"):
    print(name, repr(os.environ[name]))
print("Loss: 0.5")
"""
NCCL = """
import torch.distributed as dist
dist.init_process_group(BACKEND, init_method="tcp://127.0.0.1:29501", rank=0, world_size=1)
print("backend", dist.get_backend())
"""
GLOO = (
    "The backend nccl needs GPUs, and there are none here: use the backend gloo, "
    "torch.distributed.init_process_group('gloo')."
)
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def resources(kind: str, count: int = 1, **more: Any) -> dict[str, Any]:
    one = {"InstanceType": kind, "InstanceCount": count, "VolumeSizeInGB": 1}
    return {"ResourceConfig": one | more}


@pytest.fixture(scope="module")
def tuner(platform: Platform) -> Tuner:
    return Tuner(platform)


def test_every_type_with_gpus_that_aws_has_is_known() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    for shape in ("TrainingInstanceType", "ProductionVariantInstanceType"):
        names = model.shape_for(shape).enum
        gpus = [name for name in names if name.startswith(("ml.p", "ml.g"))]
        assert len(gpus) > 50
        assert [name for name in gpus if not INSTANCE_TYPES[name].gpus] == []
    assert not INSTANCE_TYPES["ml.m5.large"].gpus


@pytest.mark.parametrize("name", ["ml.g4dn.12xlarge 48 192 4", "ml.p3.8xlarge 32 244 4"])
def test_they_declare_what_aws_says(name: str) -> None:
    kind, *numbers = name.split()
    found = INSTANCE_TYPES[kind]
    assert [found.vcpu, found.memory_gib, found.gpus] == list(map(int, numbers))


def test_a_job_runs_on_the_cpus_and_says_so(tuner: Tuner) -> None:
    job = tuner.train(SCRIPT, **resources("ml.p5.48xlarge", 2))
    assert job["TrainingJobStatus"] == "Completed", job
    first, *lines = tuner.log(job["TrainingJobName"], "algo-2").splitlines()
    assert first.startswith("Cloche runs pytorch: ") and first.endswith(
        "; on the CPUs of this machine, without the GPUs of ml.p5.48xlarge (SM_NUM_GPUS=0)"
    )
    assert "SM_NUM_GPUS '0'" in lines and "CUDA_VISIBLE_DEVICES ''" in lines
    assert "SM_CURRENT_INSTANCE_TYPE 'ml.p5.48xlarge'" in lines
    messages = [each["StatusMessage"] for each in job["SecondaryStatusTransitions"]]
    assert messages[0] == "Starting the training job (ml.p5.48xlarge without GPUs, on CPUs)"
    assert (
        "Training image download completed. Training in progress. "
        "(ml.p5.48xlarge without GPUs, on CPUs)"
    ) in messages


def test_a_cpu_type_says_nothing_of_gpus(tuner: Tuner) -> None:
    job = tuner.train(SCRIPT)
    said = tuner.log(job["TrainingJobName"])
    messages = [each["StatusMessage"] for each in job["SecondaryStatusTransitions"]]
    assert "GPUs of" not in said and not any("GPU" in message for message in messages)
    assert "Accepted, without effect" not in said


@pytest.mark.torch
def test_nccl_ends_with_a_line_that_names_gloo(tuner: Tuner) -> None:
    pytest.importorskip("torch")
    job = tuner.train(f"BACKEND = 'nccl'\n{NCCL}", **resources("ml.g5.xlarge"))
    assert job["TrainingJobStatus"] == "Failed"
    assert tuner.log(job["TrainingJobName"]).splitlines()[-1] == GLOO
    assert GLOO in job["FailureReason"]
    # The control: gloo works, by torchrun too, which starts one process for a host of 8 GPUs.
    torchrun = {"HyperParameters": {"sagemaker_torch_distributed_enabled": "true"}}
    script = f"import os\nBACKEND = 'gloo'\n{NCCL}\nprint('local', os.environ['LOCAL_WORLD_SIZE'])"
    said = tuner.completed(script, **resources("ml.p3.16xlarge"), **torchrun)
    assert "backend gloo" in said.splitlines() and "local 1" in said.splitlines()


@pytest.mark.torch
def test_a_device_that_is_not_there_is_explained(tuner: Tuner) -> None:
    pytest.importorskip("torch")
    job = tuner.train("import torch\ntorch.zeros(1).to('cuda')", **resources("ml.g4dn.xlarge"))
    assert tuner.log(job["TrainingJobName"]).splitlines()[-1] == (
        "There are no GPUs here, whatever the instance type: choose the device by "
        "torch.device('cuda' if torch.cuda.is_available() else 'cpu')."
    )


def test_settings_without_effect_are_kept_and_said_once(tuner: Tuner) -> None:
    given = {
        "VpcConfig": VPC,
        "EnableInterContainerTrafficEncryption": True,
        "OutputDataConfig": {"S3OutputPath": "s3://training-bucket/out", "KmsKeyId": KEY},
        "AlgorithmSpecification": {
            "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"},
        },
        **resources("ml.m5.large", VolumeKmsKeyId=KEY),
    }
    name = tuner.start(f"{SCRIPT}\nopen('/opt/ml/model/m', 'w').write('m')", **given)
    job = tuner.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert job["VpcConfig"] == VPC and job["EnableInterContainerTrafficEncryption"] is True
    assert job["OutputDataConfig"]["KmsKeyId"] == job["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    image = job["AlgorithmSpecification"]["TrainingImageConfig"]
    assert image == {"TrainingRepositoryAccessMode": "Vpc"}
    said = tuner.log(name).splitlines()
    assert said[1] == (
        "Accepted, without effect on this machine: VpcConfig, "
        "EnableInterContainerTrafficEncryption, OutputDataConfig.KmsKeyId, "
        "ResourceConfig.VolumeKmsKeyId, TrainingImageConfig"
    )
    assert sum("without effect" in line for line in said) == 1
    model = tuner.s3.head_object(Bucket="training-bucket", Key=f"out/{name}/output/model.tar.gz")
    assert (model["ServerSideEncryption"], model["SSEKMSKeyId"]) == ("aws:kms", KEY)


def search(tuner: Tuner, name: str, definition: dict[str, Any]) -> None:
    tuner.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]
            },
        },
        TrainingJobDefinition=definition,
    )


def gpu_definition(tuner: Tuner) -> dict[str, Any]:
    one = resources("ml.p3.2xlarge")["ResourceConfig"] | {"VolumeKmsKeyId": KEY}
    more = {"HyperParameterTuningResourceConfig": one, "VpcConfig": VPC}
    return tuner.definition(SCRIPT, **more)


def test_a_searchs_trials_run_on_the_cpus_too(tuner: Tuner) -> None:
    search(tuner, "gpu", gpu_definition(tuner))
    found = tuner.over("gpu")
    assert found["TrainingJobDefinition"]["VpcConfig"] == VPC
    (trial,) = tuner.jobs("gpu")
    job = tuner.describe(trial["TrainingJobName"])
    assert job["VpcConfig"] == VPC and job["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    said = tuner.log(trial["TrainingJobName"])
    assert "without the GPUs of ml.p3.2xlarge" in said and "SM_NUM_GPUS '0'" in said


CODE = """
import json, os
def model_fn(model_dir):
    return [os.environ["SM_NUM_GPUS"], os.environ["CUDA_VISIBLE_DEVICES"]]
def transform_fn(model, body, content_type, accept):
    return json.dumps(model)
"""


def test_an_endpoint_serves_on_the_cpus(platform: Platform) -> None:
    serving = Serving(platform)
    serving.s3.create_bucket(Bucket="models")
    uri = serving.put_model("m", CODE)
    serving.sagemaker.create_model(
        ModelName="m",
        PrimaryContainer={
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-gpu-py312",
            "ModelDataUrl": uri,
            "ImageConfig": {"RepositoryAccessMode": "Vpc"},
        },
        ExecutionRoleArn=serving.role,
        VpcConfig=VPC,
    )
    model = serving.sagemaker.describe_model(ModelName="m")
    assert model["VpcConfig"] == VPC
    assert model["PrimaryContainer"]["ImageConfig"] == {"RepositoryAccessMode": "Vpc"}
    variant = {
        "VariantName": "v",
        "ModelName": "m",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.g5.2xlarge",
        "InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-2",
    }
    serving.sagemaker.create_endpoint_config(
        EndpointConfigName="c", ProductionVariants=[variant], KmsKeyId=KEY, VpcConfig=VPC
    )
    config = serving.sagemaker.describe_endpoint_config(EndpointConfigName="c")
    assert (config["KmsKeyId"], config["VpcConfig"]) == (KEY, VPC)
    assert config["ProductionVariants"][0].items() >= variant.items()
    serving.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert serving.settled("e")["EndpointStatus"] == "InService"
    assert serving.invoke("e", [1]) == ["0", ""]
    logs = platform.client("logs")
    group = "/aws/sagemaker/Endpoints/e"
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(
        logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
    )["events"]
    first, second = (event["message"] for event in events[:2])
    assert first.endswith("without the GPUs of ml.g5.2xlarge (SM_NUM_GPUS=0)")
    assert second == (
        "Accepted, without effect on this machine: VpcConfig, KmsKeyId, ImageConfig, "
        "InferenceAmiVersion"
    )
    serving.sagemaker.delete_endpoint(EndpointName="e")


def test_a_configuration_can_isolate_what_it_serves(platform: Platform) -> None:
    serving = Serving(platform)
    model = serving.model("lonely")
    variant = {
        "VariantName": "v",
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    serving.sagemaker.create_endpoint_config(
        EndpointConfigName="alone", ProductionVariants=[variant], EnableNetworkIsolation=True
    )
    found = serving.sagemaker.describe_endpoint_config(EndpointConfigName="alone")
    assert found["EnableNetworkIsolation"] is True
    serving.sagemaker.create_endpoint(EndpointName="alone", EndpointConfigName="alone")
    serving.settled("alone")
    (gang,) = serving.gangs("alone")
    assert gang not in platform.app.doors.served  # no way out, and no platform
    serving.sagemaker.delete_endpoint(EndpointName="alone")


@pytest.fixture
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home"), gpu_instances="refuse") as running:
        yield running


def test_who_wants_a_refusal_gets_one(refusing: Platform) -> None:
    tuner = Tuner(refusing)
    serving = Serving(refusing)
    serving.s3.create_bucket(Bucket="models")
    model = serving.model("m")
    text = "Cloche does not support the instance type ml.p3.2xlarge. This machine stands in for CPU"
    group = {"InstanceGroupName": "g", "InstanceType": "ml.p3.2xlarge", "InstanceCount": 1}
    cases = [
        (lambda: tuner.start(SCRIPT, **resources("ml.p3.2xlarge")), text),
        (lambda: tuner.start(SCRIPT, ResourceConfig={"InstanceGroups": [group]}), text),
        (lambda: search(tuner, "gpu", gpu_definition(tuner)), text),
        (
            lambda: serving.config(model, InstanceType="ml.p5.48xlarge"),
            "Cloche does not support InstanceType ml.p5.48xlarge.",
        ),
    ]
    for call, said in cases:
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Message"].startswith(said)
