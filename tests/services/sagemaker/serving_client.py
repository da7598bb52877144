"""Endpoints through boto3 against a whole platform."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import textwrap
import time
from collections.abc import Callable
from typing import Any

from training_client import wait_for

from cloche.testing.platform import Platform

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
ARN = "arn:aws:sagemaker:us-east-1:123456789012"
SETTLED_S = 60.0
PLAIN = """
import json, os
def model_fn(model_dir):
    return open(os.path.join(model_dir, "name")).read()
def input_fn(body, content_type):
    return json.loads(body)
def predict_fn(data, model):
    if data == "fail":
        raise ValueError("no such breed")
    if data == "crash":
        os._exit(7)
    if data == "pid":
        return os.uname().nodename
    return [model, data]
"""


def archive(files: dict[str, str]) -> bytes:
    """Return a model.tar.gz as SDK 2.x repacks it: with a member for the root, of no name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as members:
        root = tarfile.TarInfo("")
        root.type = tarfile.DIRTYPE
        members.addfile(root)
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            members.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


class Serving:
    """A platform and short ways to put endpoints on it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.sagemaker = platform.client("sagemaker")
        self.runtime = platform.client("sagemaker-runtime")
        self.s3 = platform.client("s3")
        self.role = platform.client("iam").list_roles()["Roles"][0]["Arn"]
        self.numbers = itertools.count(1)

    def model(self, name: str, code: str = PLAIN, **files: str) -> str:
        """Make a model that answers [name, data]."""
        self.create_model(name, ModelDataUrl=self.put_model(name, code, **files))
        return name

    def put_model(self, name: str, code: str, **files: str) -> str:
        """Put a model's archive into S3; return its URI."""
        contents = {"code/inference.py": textwrap.dedent(code), "name": name, **files}
        key = f"{name}/model.tar.gz"
        self.s3.put_object(Bucket="models", Key=key, Body=archive(contents))
        return f"s3://models/{key}"

    def create_model(self, name: str, **container: Any) -> None:
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={"Image": IMAGE, **container},
            ExecutionRoleArn=self.role,
        )

    def config(self, *models: str, count: int = 1, **more: Any) -> str:
        """Make a configuration with a variant for each model, named as it."""
        name = f"config-{next(self.numbers)}"
        variants = [
            {
                "VariantName": model,
                "ModelName": model,
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": count,
                **more,
            }
            for model in models
        ]
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
        return name

    def deploy(self, name: str, *models: str, **more: Any) -> dict[str, Any]:
        config = self.config(*models, **more)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        """Wait until nothing is on its way; return the description."""
        busy = ("Creating", "Updating", "RollingBack", "Deleting")
        return self.until(lambda: self.describe(name), lambda d: d["EndpointStatus"] not in busy)

    def describe(self, name: str) -> dict[str, Any]:
        described: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return described

    def until(self, look: Callable[[], Any], right: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + SETTLED_S
        while not right(seen := look()):
            assert time.monotonic() < deadline, seen
            time.sleep(0.05)
        return seen

    def invoke(self, name: str, data: object, **more: Any) -> Any:
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, Body=json.dumps(data), ContentType="application/json", **more
        )
        return json.loads(answer["Body"].read())

    def gangs(self, endpoint: str) -> list[str]:
        """Return the gangs of an endpoint's replicas, those that leave too."""
        app = self.platform.app
        record = app.store.find(f"{ARN}:endpoint/{endpoint.lower()}")
        assert record is not None
        document = record.document
        replicas = (document["serving"] or {}).get("replicas", []) + list(document["leaving"])
        return [f"endpoint-{replica['id']}" for replica in replicas]

    def delete(self, name: str) -> None:
        self.sagemaker.delete_endpoint(EndpointName=name)
        self.until(lambda: self.exists(name), lambda there: not there)

    def exists(self, name: str) -> bool:
        return name in [e["EndpointName"] for e in self.sagemaker.list_endpoints()["Endpoints"]]


def deploy(sagemaker: Any, role: str, name: str, image: str, uri: str, **variables: str) -> None:
    """Ask for an endpoint with one instance of a model; all of them have the same name."""
    container = {"Image": image, "ModelDataUrl": uri, "Environment": variables}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {
        "VariantName": "v",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def settled(sagemaker: Any, name: str) -> Any:
    """Return an endpoint's description once it is no longer Creating."""

    def look() -> Any:
        found = sagemaker.describe_endpoint(EndpointName=name)
        return found if found["EndpointStatus"] != "Creating" else None

    return wait_for(look)
