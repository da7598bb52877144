"""What the SDKs sent (`traces/`, written by record.py), sent again and signed anew.

So every run of the tests hears what SDK 2.70.0 and 3.x say, also where they are not installed.
"""

import gzip
import importlib.util
import io
import json
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from cloche.testing.platform import ACCOUNT, Platform, start

FOLDER = Path(__file__).parent
BUCKET = f"sagemaker-us-east-1-{ACCOUNT}"
SCOPES = {"api.sagemaker": "sagemaker", "runtime.sagemaker": "sagemaker"}
WITHIN_S = 60.0
TRAIN = """
cd /opt/ml/input/data/code
export SM_MODEL_DIR=/opt/ml/model SM_CHANNEL_TRAINING=/opt/ml/input/data/training
SM_HOSTS=[] SM_CURRENT_HOST=algo-1 exec python3 *.py
"""
SUM = "print('rank 1 of 2, sum 4.5')\n"  # what two hosts say, started by torchrun
# What the clients read of an answer (a missing member breaks them).
NEEDED = {
    "CreateTrainingJob": ["TrainingJobArn"],
    "CreateHyperParameterTuningJob": ["HyperParameterTuningJobArn"],
    "CreateModel": ["ModelArn"],
    "CreateEndpointConfig": ["EndpointConfigArn"],
    "CreateEndpoint": ["EndpointArn"],
    "UpdateEndpoint": ["EndpointArn"],
    "DescribeEndpoint": ["EndpointStatus", "EndpointConfigName"],
    "DescribeTrainingJob": [
        "TrainingJobStatus",
        "SecondaryStatusTransitions",
        "LastModifiedTime",
        "RoleArn",
        "ResourceConfig.InstanceCount",
        "StoppingCondition.MaxRuntimeInSeconds",
        "OutputDataConfig.KmsKeyId",
        "ModelArtifacts.S3ModelArtifacts",
    ],
    "DescribeHyperParameterTuningJob": [
        "HyperParameterTuningJobStatus",
        "BestTrainingJob.TrainingJobName",
        "TrainingJobDefinition.StaticHyperParameters._tuning_objective_metric",
        "TrainingJobDefinition.ResourceConfig",
        "HyperParameterTuningJobConfig.ParameterRanges.CategoricalParameterRanges",
        "HyperParameterTuningJobConfig.ParameterRanges.ContinuousParameterRanges",
        "HyperParameterTuningJobConfig.ParameterRanges.IntegerParameterRanges",
    ],
    "ListTrainingJobsForHyperParameterTuningJob": ["TrainingJobSummaries"],
    "DescribeLogStreams": ["logStreams"],
    "GetLogEvents": ["events", "nextForwardToken"],
}
# Refusals that the clients expect, and what they look for in them; and of what the execution role
# may not do on AWS either, where they go on without.
EXPECTED = {
    "DescribeEndpointConfig": "Could not find",
    "FilterLogEvents": "is not authorized to perform: logs:FilterLogEvents",
    "GetRole": "is not authorized to perform: iam:GetRole",
    "SimulatePrincipalPolicy": "is not authorized to perform: iam:SimulatePrincipalPolicy",
}
WAIT = {  # what a client waits for after these: how to look, the member, what is not yet over
    "CreateTrainingJob": ("describe_training_job", "TrainingJobName", "TrainingJobStatus"),
    "CreateHyperParameterTuningJob": (
        "describe_hyper_parameter_tuning_job",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus",
    ),
    "CreateEndpoint": ("describe_endpoint", "EndpointName", "EndpointStatus"),
    "UpdateEndpoint": ("describe_endpoint", "EndpointName", "EndpointStatus"),
}
TRIAL = r"[\w-]+-\d{3}-[0-9a-f]{8}\b"
ENDED = ("Completed", "InService")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for all traces, with the SDKs' bucket."""
    with start(tmp_path_factory.mktemp("traces") / "home") as platform:
        platform.client("s3").create_bucket(Bucket=BUCKET)
        yield platform


def stories_files() -> ModuleType:
    """Return the module of the files that the stories used."""
    spec = importlib.util.spec_from_file_location("projects", FOLDER / "stories/projects.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILES = stories_files()


def archive(files: Mapping[str, str]) -> bytes:
    """Return a .tar.gz."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    return gzip.compress(memory.getvalue())


def uploaded(key: str) -> bytes:
    """Return what the story put under a key, or what stands for it."""
    name = key.rsplit("/", 1)[-1]
    if name == "sourcedir.tar.gz":
        return archive({"hpo.py": FILES.HPO, "inference.py": FILES.INFERENCE})
    if name == "model.tar.gz":
        return archive({"model.json": '{"batch_size": 7}', "code/inference.py": FILES.INFERENCE})
    plain = {"hpo.py": FILES.HPO, "sum.py": SUM, "sm_train.sh": TRAIN}
    return plain.get(name, "1\n").encode()


def member(answer: Any, path: str) -> bool:
    """Tell whether an answer has a member, by its dotted path."""
    for name in path.split("."):
        if not isinstance(answer, dict) or name not in answer:
            return False
        answer = answer[name]
    return True


def operation(request: Mapping[str, Any]) -> str:
    """Return the name of the operation that a request asks for."""
    target = request["headers"].get("X-Amz-Target")
    if target:
        return str(target).rsplit(".", 1)[-1]
    action = re.search(r"Action=(\w+)", request["body"])
    return action[1] if action else "InvokeEndpoint"


def send(platform: Platform, request: Mapping[str, Any]) -> tuple[int, str]:
    """Send a request, signed with the role's keys; return the status and the text."""
    service = request["service"]
    signed = AWSRequest(
        request["method"],
        platform.address + request["path"],
        headers=request["headers"],
        data=request["body"].encode(),
    )
    credentials = platform.session().get_credentials()
    SigV4Auth(credentials, SCOPES.get(service, service), "us-east-1").add_auth(signed)
    answer = urllib3.request(
        signed.method, signed.url, headers=dict(signed.headers), body=request["body"].encode()
    )
    return answer.status, answer.data.decode()


class Names:
    """Names that the platform makes, in the place of those of the recording."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def learn(self, name: str, answer: Any) -> None:
        """Take the best trial and the log streams from an answer."""
        if name == "DescribeHyperParameterTuningJob":
            self.known[TRIAL] = answer["BestTrainingJob"]["TrainingJobName"]
        if name == "DescribeLogStreams":
            for stream in answer["logStreams"]:
                known = stream["logStreamName"].rsplit("/", 1)[-1]
                self.known[known.rsplit("-", 1)[0] + r"-\d+"] = known  # algo-1-1795617516

    def put(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request with the names of this platform."""
        body = request["body"]
        for pattern, name in self.known.items():
            body = re.sub(pattern, name, body)
        return {**request, "body": body}


def settle(platform: Platform, name: str, body: str) -> None:
    """Wait as the client does after this operation; AssertionError when it ended otherwise."""
    look, key, status = WAIT[name]
    describe = getattr(platform.client("sagemaker"), look)
    deadline = time.monotonic() + WITHIN_S
    while (seen := describe(**{key: json.loads(body)[key]}))[status] not in ENDED:
        assert seen[status] not in ("Failed", "Stopped"), seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


@pytest.mark.parametrize("trace", sorted((FOLDER / "traces").glob("*.json")), ids=lambda t: t.stem)
def test_what_the_sdks_send_is_answered(trace: Path, platform: Platform) -> None:
    role = platform.client("iam").list_roles()["Roles"][0]["RoleName"]
    requests = json.loads(trace.read_text().replace("AmazonSageMaker-ExecutionRole-X", role))
    s3, names = platform.client("s3"), Names()
    for request in requests:
        if request["service"] == "s3":
            key = unquote(request["path"].split("?")[0]).removeprefix(f"/{BUCKET}").lstrip("/")
            if key:
                s3.put_object(Bucket=BUCKET, Key=key, Body=uploaded(key))
            continue
        name, request = operation(request), names.put(request)
        status, text = send(platform, request)
        if status != 200:
            assert name in EXPECTED and EXPECTED[name] in text, (name, status, text)
            continue
        if name in WAIT:
            settle(platform, name, request["body"])
        for path in NEEDED.get(name, []):
            assert member(json.loads(text), path), (name, path, text)
        if name in NEEDED:
            names.learn(name, json.loads(text))
        if name == "InvokeEndpoint":
            assert json.loads(text)["batch_size"] == 7
