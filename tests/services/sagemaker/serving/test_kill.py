"""`kill -9` of the server at every step of an endpoint's life: with the next one it goes on.

Nobody starts that one but its parent, and no client does anything but ask.
"""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from killable import Killable

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
SLOW = """
import json, os, time
def model_fn(model_dir):
    time.sleep(0.5)  # a model that takes its time: there is something to interrupt
    return open(os.path.join(model_dir, "name")).read()
def input_fn(body, content_type): return json.loads(body)
def predict_fn(data, model): return model
"""


class Endpoints(Killable):
    """One whose endpoints' traces are looked at."""

    def replicas(self) -> list[Path]:
        """Return the folders of all replicas of all endpoints."""
        return sorted(self.home.glob("instances/*/replicas/*"))

    def gangs(self) -> list[str]:
        return sorted(path.name for path in self.home.glob("runs/endpoint-*"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    made = Endpoints(tmp_path_factory.mktemp("kill") / "home")
    made.up()
    prepare(made)
    yield made
    sagemaker = made.client("sagemaker")
    for endpoint in sagemaker.list_endpoints()["Endpoints"]:
        sagemaker.delete_endpoint(EndpointName=endpoint["EndpointName"])
    made.until(lambda: not sagemaker.list_endpoints()["Endpoints"])
    made.kill_all()


def prepare(server: Endpoints) -> None:
    """Make configurations `one` and `two`."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    role = server.client("iam").list_roles()["Roles"][0]["Arn"]
    s3.create_bucket(Bucket="models")
    for name in ("one", "two"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for path, text in (("code/inference.py", SLOW), ("name", name)):
                info = tarfile.TarInfo(path)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        s3.put_object(Bucket="models", Key=name, Body=stream.getvalue())
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://models/{name}"},
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def status(server: Endpoints, name: str) -> str:
    try:
        described = server.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError:
        return "gone"
    found: str = described["EndpointStatus"]
    return found


def answer(server: Endpoints, name: str) -> Any:
    response = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=b"1", ContentType="application/json"
    )
    return json.loads(response["Body"].read())


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_killed_while_an_endpoint_is_created(server: Endpoints, delay_s: float) -> None:
    sagemaker = server.client("sagemaker")
    name = f"created-{round(delay_s * 100)}"
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="one")
    time.sleep(delay_s)  # how far it gets is what differs
    server.kill()
    server.until(lambda: status(server, name) != "Creating")
    assert status(server, name) == "InService"
    assert answer(server, name) == "one"
    assert (len(server.replicas()), len(server.gangs())) == (1, 1)
    sagemaker.delete_endpoint(EndpointName=name)
    server.until(lambda: status(server, name) == "gone")
    assert (server.replicas(), server.gangs()) == ([], [])


def test_killed_while_it_serves_is_updated_and_is_deleted(server: Endpoints) -> None:
    sagemaker = server.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="long", EndpointConfigName="one")
    server.until(lambda: status(server, "long") == "InService")
    before = server.gangs()
    server.kill()
    assert answer(server, "long") == "one"
    assert server.gangs() == before  # the same process

    sagemaker.update_endpoint(EndpointName="long", EndpointConfigName="two")
    server.kill()
    assert answer(server, "long") in ("one", "two")
    server.until(lambda: status(server, "long") == "InService")
    assert answer(server, "long") == "two"
    server.until(lambda: len(server.gangs()) == 1)
    assert server.gangs() != before
    server.until(lambda: len(list(server.home.glob("instances/long-*/models/*"))) == 1)

    sagemaker.delete_endpoint(EndpointName="long")
    server.kill()
    server.until(lambda: status(server, "long") == "gone")
    assert (server.replicas(), server.gangs()) == ([], [])
