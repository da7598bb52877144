"""AWS's own modules in user code: an environment over the image's, for scripts that import them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving_client import deploy, settled
from training_client import Trainer, source

from cloche.testing.platform import Platform

pytestmark = pytest.mark.torch
PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-cpu-py312"
TRAINING = """
import flask, mms.service, torch
import sagemaker_containers
from sagemaker_algorithm_toolkit import exceptions
from sagemaker_containers import _content_types, _encoders, _errors, entry_point
from sagemaker_containers.beta.framework import (
    content_types, encoders, env, errors, files, functions, mapping, modules, params, runner,
    transformer, worker)
from sagemaker_huggingface_inference_toolkit import content_types as media, decoder_encoder
from sagemaker_inference import decoder, default_inference_handler, encoder
from sagemaker_pytorch_serving_container import handler_service
from sagemaker_pytorch_serving_container.default_inference_handler import (
    DefaultPytorchInferenceHandler)
from sagemaker_sklearn_container import serving
from sagemaker_training import environment, logging_config

for known in (environment.Environment(), sagemaker_containers.training_env(), env.TrainingEnv()):
    print(known.hyperparameters["lr"], known.channel_input_dirs, known.current_host, known.hosts)
print(env.ServingEnv().default_accept, len(dict(env.ServingEnv())), mapping.to_cmd_args({"lr": 1}))
print(decoder_encoder.encode(decoder_encoder.decode('{"inputs": "a"}'), media.JSON))
print(repr(encoders.encode([[1, 2.5]], content_types.CSV)), encoders.decode("[1]", media.JSON))
try:
    encoders.encode([1], "image/png")
except errors.UnsupportedFormatError as error:
    print(type(error) is _errors.UnsupportedFormatError, str(error).splitlines()[0])
app = worker.Worker(lambda: worker.Response("[1]"), module_name="app").test_client()
print(app.get("/ping").status_code, app.post("/invocations").content_type)
print(serving.default_input_fn("1,2", "text/csv").dtype)
handler = DefaultPytorchInferenceHandler()
print(handler.default_output_fn(handler.default_input_fn("[1]", media.JSON), "text/csv"))
"""
SERVING = """
import json
from sagemaker_containers.beta.framework import encoders, errors, worker
from sagemaker_inference import content_types, decoder, encoder
from sagemaker_inference.errors import BaseInferenceToolkitError
from mms.service import PredictionException
def model_fn(model_dir): return None
def input_fn(body, content_type):
    if content_type == "application/x-strange":
        raise errors.UnsupportedFormatError(content_type)
    return decoder.decode(body, content_type)
def predict_fn(data, model):
    if data[0] == 422:
        raise BaseInferenceToolkitError(422, "no such column", "Unprocessable")
    if data[0] == 400:
        raise PredictionException("no such task", 400)
    if data[0] == 500:
        raise ValueError("any error")
    return data * 2
def output_fn(data, accept):
    if accept == "text/csv":
        return encoder.encode(data, accept), accept
    if accept == "application/x-strange":
        return encoders.encode(data, accept)
    return worker.Response(json.dumps(data.tolist()), status=201, mimetype=accept)
"""


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def test_modules_are_there_in_a_job(trainer: Trainer) -> None:
    """Each under its own name, with the answers that AWS's has."""
    log = trainer.completed(TRAINING, HyperParameters={"lr": "0.5"}).splitlines()
    heading = next(line for line in log if line.startswith("Cloche runs "))
    assert heading.startswith("Cloche runs pytorch-toolkits: Python ")
    place = "0.5 {'training': '/opt/ml/input/data/training'} algo-1 ['algo-1']"
    said = "Content type image/png is not supported by this framework."
    start = log.index(place)
    assert log[start : start + 10] == [
        *([place] * 3),
        "application/json 15 ['--lr', '1']",
        '{"inputs":"a"}',
        "'1.0,2.5\\n' [1]",
        f"True {said}",
        "200 application/json",
        "float32",
        "b'1.0\\n'",
    ]


def test_others_stay_as_they_are(trainer: Trainer) -> None:
    log = trainer.completed("import importlib.util as u\nprint(u.find_spec('sagemaker_training'))")
    assert log.splitlines()[0].startswith("Cloche runs pytorch: ")
    assert "None" in log.splitlines()


def test_an_sdk_3_script_comes_in_a_channel(trainer: Trainer) -> None:
    uri = trainer.put("three/train.py", "import sagemaker_training; print('here')")
    code = {
        "ChannelName": "code",
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri[: -len("/train.py")]}
        },
    }
    entry = {
        "ContainerEntrypoint": ["python"],
        "ContainerArguments": ["/opt/ml/input/data/code/train.py"],
    }
    log = trainer.completed(InputDataConfig=[code], AlgorithmSpecification=entry)
    assert "here" in log.splitlines()


@pytest.fixture(scope="module")
def endpoint(trainer: Trainer) -> str:
    uri = trainer.put("model.tar.gz", source({"code/inference.py": SERVING}))
    deploy(trainer.sagemaker, trainer.role, "toolkits", PYTORCH, uri)
    found = settled(trainer.sagemaker, "toolkits")
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    return "toolkits"


def invoke(platform: Platform, body: bytes, accept: str, kind: str = "application/json") -> Any:
    runtime = platform.client("sagemaker-runtime")
    return runtime.invoke_endpoint(
        EndpointName="toolkits", Body=body, Accept=accept, ContentType=kind
    )


def test_responses_of_the_toolkits(platform: Platform, endpoint: str) -> None:
    answer = invoke(platform, b"[1, 2]", "text/csv")
    assert answer["Body"].read() == b"2\n4\n" and answer["ContentType"] == "text/csv"
    answer = invoke(platform, b"[1, 2]", "application/json")
    assert answer["Body"].read() == b"[2, 4]" and answer["ContentType"] == "application/json"


@pytest.mark.parametrize(
    ("body", "accept", "kind", "status", "first"),
    [
        (b"[422]", "text/csv", "application/json", 422, "no such column\nTraceback (most"),
        (b"[400]", "text/csv", "application/json", 400, "no such task\nTraceback (most"),
        (b"[500]", "text/csv", "application/json", 500, "any error\n"),
        (b"[1]", "application/x-strange", "application/json", 406, '{"error": "Unsupp'),
        (b"[1]", "text/csv", "application/x-strange", 415, '{"error": "Unsupp'),
    ],
)
def test_errors_of_the_toolkits(
    platform: Platform, endpoint: str, body: bytes, accept: str, kind: str, status: int, first: str
) -> None:
    """They have the status that they name; any other has 500."""
    with pytest.raises(ClientError) as refused:
        invoke(platform, body, accept, kind)
    answer = refused.value.response
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["OriginalStatusCode"] == status
    assert answer["OriginalMessage"].startswith(first)
