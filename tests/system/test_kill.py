"""`kill -9` of the server at every step of a job's and an endpoint's life.

Each life of the server gets one step further and dies before it can write down what it did (see
doomed.py). After the last `up` the job is finished, once; its log is whole; every object whose PUT
was acknowledged is there; the endpoints answer; the warm pool that the job left takes the next one.
"""

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from killed_server import REGISTRY, Server, archive, end_all, until

DOOMED = Path(__file__).with_name("doomed.py")
STORY, NEXT, STEADY, BUCKET = "story", "next", "steady", "kill-bucket"
LINES = 8
SCRIPT = f"""
import os, time
cache = os.environ["SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"]
print("cached", os.listdir(cache), flush=True)
open(os.path.join(cache, os.environ["TRAINING_JOB_NAME"]), "w").close()
print("seen", open("/opt/ml/input/data/training/a.txt").read(), flush=True)
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.2)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "w") as file:
    file.write("42")
"""
INFERENCE = """
import json
def model_fn(folder): return 3
def input_fn(body, content_type): return json.loads(body)
def predict_fn(data, model): return data * model
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, DOOMED)
    yield made
    end_all(made)


class Uploads:
    """Somebody who puts objects all the while, and remembers what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self.server, self.acknowledged = server, dict[str, bytes]()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        s3, number = self.server.client("s3"), 0
        while not self.over.wait(0.005):
            number += 1
            key, body = f"put/{number:05d}", os.urandom(1000 + number)
            try:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            except (BotoCoreError, ClientError):
                continue
            self.acknowledged[key] = body


class Story:
    """A user who trains, deploys and deletes, and asks again when there is no answer."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sagemaker = server.client("sagemaker")
        self.role = server.client("iam").list_roles()["Roles"][0]["Arn"]
        s3 = server.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for key, body in (
            ("data/a.txt", b"hello"),
            ("source.tar.gz", archive({"train.py": SCRIPT})),
            ("model.tar.gz", archive({"code/inference.py": INFERENCE})),
        ):
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def prepare_endpoints(self) -> None:
        container = {
            "Image": f"{REGISTRY}/pytorch-inference:2.6-cpu-py312",
            "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz",
        }
        self.sagemaker.create_model(
            ModelName="m", ExecutionRoleArn=self.role, PrimaryContainer=container
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": "m",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])

    def train(self, name: str = STORY, *, metrics: Sequence[Any] = (), **more: Any) -> None:
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data/"}
        self.sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=self.role,
            AlgorithmSpecification={
                "TrainingImage": f"{REGISTRY}/pytorch-training:2.6-cpu-py312",
                "TrainingInputMode": "File",
                "MetricDefinitions": metrics,
            },
            HyperParameters={
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": f"s3://{BUCKET}/source.tar.gz",
            },
            InputDataConfig=[{"ChannelName": "training", "DataSource": {"S3DataSource": source}}],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
            ResourceConfig={
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
                "KeepAlivePeriodInSeconds": 3600,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 600},
            **more,
        )

    def job(self, name: str = STORY) -> Any:
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def deploy(self, name: str = STORY) -> None:
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c")

    def endpoint(self, name: str = STORY) -> str:
        """Return the endpoint's status, "gone" when there is none."""
        try:
            status: str = self.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
        except ClientError as error:
            assert "Could not find endpoint" in error.response["Error"]["Message"]
            return "gone"
        return status

    def delete(self) -> None:
        self.sagemaker.delete_endpoint(EndpointName=STORY)

    def answer(self, name: str) -> Any:
        response = self.server.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=b"14", ContentType="application/json"
        )
        return json.loads(response["Body"].read())


def live_until(server: Server, begun: Callable[[], Any], begin: Callable[[], Any],
               done: Callable[[], bool]) -> None:  # fmt: skip
    """Have the server live and die until `done`; `begin` is asked for until it has `begun`."""
    while True:
        if server.ended:
            server.up(doomed=True)
        try:
            if not begun():
                begin()
            if done():
                return
        except BotoCoreError:
            until(lambda: server.ended)  # it died while we asked
        time.sleep(0.02)


def exists(story: Story) -> bool:
    try:
        story.job()
    except ClientError:
        return False
    return True


def test_killed_at_every_step(server: Server) -> None:
    server.up(doomed=False)
    story = Story(server)
    story.prepare_endpoints()
    story.deploy(STEADY)
    until(lambda: story.endpoint(STEADY) != "Creating")
    assert story.answer(STEADY) == 42
    server.kill()

    uploads = Uploads(server)
    try:
        live_until(
            server,
            lambda: exists(story),
            story.train,
            lambda: story.job()["TrainingJobStatus"] not in ("InProgress", "Stopping"),
        )
        live_until(
            server,
            lambda: story.endpoint() != "gone",
            story.deploy,
            lambda: story.endpoint() not in ("gone", "Creating"),
        )
        assert story.endpoint() == "InService"
        server.kill()
        server.up(doomed=False)
        for name in (STORY, STEADY):
            assert story.answer(name) == 42
        server.kill()
        live_until(
            server,
            lambda: story.endpoint() in ("Deleting", "gone"),
            story.delete,
            lambda: story.endpoint() == "gone",
        )
    finally:
        uploads.stop()
    server.kill()
    server.up(doomed=False)
    check_deaths(server)
    check_job(server, story)
    check_objects(server, uploads)
    check_warm_pool(server, story)
    assert story.answer(STEADY) == 42
    assert story.endpoint() == "gone"


def check_deaths(server: Server) -> None:
    """The server did die at each step: the test is not empty."""
    deaths = server.journal.read_text().splitlines()
    print(f"{server.lives} lives;", "; ".join(deaths))
    assert len(deaths) >= 8
    for kind in ("training-job", "endpoint"):
        assert sum(kind in death for death in deaths) >= 3, deaths


def check_job(server: Server, story: Story) -> None:
    """The job was run and finished once; its log is whole; its model is there."""
    job = story.job()
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [one["Status"] for one in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    logs, group = server.client("logs"), "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert [one["logStreamName"].split("-")[0] for one in streams] == [f"{STORY}/algo"]
    events = logs.filter_log_events(logGroupName=group)["events"]
    lines = [one["message"] for one in events if one["message"].startswith(("seen", "line"))]
    assert lines == ["seen hello", *[f"line {number}" for number in range(LINES)]]
    uri = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/")
    body = server.client("s3").get_object(Bucket=BUCKET, Key=uri)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        weights = tar.extractfile("weights")
        assert weights is not None and weights.read() == b"42"


def check_warm_pool(server: Server, story: Story) -> None:
    """The pool has outlived every death: the next job takes it, and finds the first one's cache."""
    assert story.job()["WarmPoolStatus"]["Status"] == "Available"
    story.train(NEXT)
    until(lambda: story.job(NEXT)["TrainingJobStatus"] != "InProgress")
    assert story.job(NEXT)["TrainingJobStatus"] == "Completed", story.job(NEXT)
    pool = story.job()["WarmPoolStatus"]
    assert (pool["Status"], pool["ReusedByJob"]) == ("Reused", NEXT)
    found = server.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs",
        logStreamNamePrefix=f"{NEXT}/",
        filterPattern="cached",
    )
    assert [event["message"] for event in found["events"]] == [f"cached ['{STORY}']"]


def check_objects(server: Server, uploads: Uploads) -> None:
    """Every object whose PUT was acknowledged is there, byte for byte."""
    s3 = server.client("s3")
    assert len(uploads.acknowledged) >= 20
    for key, body in uploads.acknowledged.items():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body, key
