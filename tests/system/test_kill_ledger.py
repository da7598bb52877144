"""`kill -9` of the server at any moment, under puts, jobs and invocations, judged by a ledger.

At each kill a put, a launch and an artifact's upload are in flight. The ledger lies outside the
platform: what each run of a job said to a server of the test, what clients saw acknowledged,
what a replica counted in its own memory. Nobody but its parent starts the next server, and nobody
is refused meanwhile.
"""

import io
import json
import os
import random
import statistics
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from killed_server import REGISTRY, Kept, Server, answers, archive, end_all, until
from ledger import ADDRESS, Ledger

from cloche.testing.extent import Extent

ROOMY = Path(__file__).with_name("roomy.py")
BUCKET, ENDPOINT = "ledger-bucket", "steady"
LANES = 5
A_JOB_S = 3.0  # what a job takes, about
WITHIN_S = 120.0
SCRIPT = """
import os, random, time, urllib.request, uuid
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""
run, job = uuid.uuid4().hex, os.environ["TRAINING_JOB_NAME"]

def tell(event):
    while True:
        try:
            url = f"http://ADDRESS:PORT/{job}/{event}/{run}"
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.02)

tell("started")
time.sleep(random.random() * 0.5)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "run"), "w") as file:
    file.write(run)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "wb") as file:
    file.write(os.urandom(12_000_000))
tell("ended")
"""
INFERENCE = """
import collections, json
counted = collections.Counter()

def model_fn(folder): return None
def input_fn(body, content_type): return json.loads(body)

def predict_fn(data, model):
    if data == "report":
        return dict(counted)
    counted[str(data)] += 1
    return data * 3

def output_fn(answer, accept): return json.dumps(answer)
"""


class Worker(threading.Thread):
    """Does the same again until it is asked to stop; keeps what ended it."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.act, self.over, self.error = act, threading.Event(), None
        self.start()

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.act()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.over.set()
        self.join(WITHIN_S)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


class Puts:
    """Puts objects all the while: `acknowledged` must be there, `tried` may be, whole."""

    def __init__(self, server: Server) -> None:
        self.s3 = server.client("s3")
        self.tried: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.in_flight = False

    def act(self) -> None:
        key = f"put/{len(self.tried):06d}"
        self.tried[key] = os.urandom(1000 + len(self.tried) % 5000)
        self.in_flight = True
        try:
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=self.tried[key])
            self.acknowledged.add(key)
        except (BotoCoreError, ClientError) as error:
            assert not isinstance(error, EndpointConnectionError), error
            time.sleep(0.02)
        finally:
            self.in_flight = False


class Questions:
    """Asks the endpoint all the while, each question once."""

    def __init__(self, server: Server) -> None:
        self.runtime = server.client("sagemaker-runtime")
        self.asked = 0
        self.answered: set[int] = set()

    def act(self) -> None:
        self.asked += 1
        number = self.asked
        try:
            assert self.ask(number) == number * 3
            self.answered.add(number)
        except (BotoCoreError, ClientError) as error:
            assert not isinstance(error, EndpointConnectionError), error
            time.sleep(0.02)

    def ask(self, question: object) -> Any:
        answer = self.runtime.invoke_endpoint(
            EndpointName=ENDPOINT, Body=json.dumps(question), ContentType="application/json"
        )
        return json.loads(answer["Body"].read())


class Lane:
    """Runs jobs one after another."""

    def __init__(self, server: Server, ledger: Ledger, number: int, role: str) -> None:
        self.sagemaker, self.ledger, self.role = server.client("sagemaker"), ledger, role
        self.number, self.jobs = number, list[str]()
        self.ended: dict[str, str] = {}

    @property
    def stands(self) -> str:
        """Return where the lane's job is: launch, run, upload; empty between jobs."""
        job = self.jobs[-1] if self.jobs else ""
        if not job or job in self.ended:
            return ""
        if self.ledger.runs(job, "ended"):
            return "upload"
        return "run" if self.ledger.runs(job, "started") else "launch"

    def act(self) -> None:
        job = f"job-{self.number}-{len(self.jobs):04d}"
        self.jobs.append(job)
        self.asked(lambda: self.create(job))
        deadline = time.monotonic() + WITHIN_S
        while (status := self.asked(lambda: self.status(job))) == "InProgress":
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        self.ended[job] = str(status)

    def asked(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                return ask()
            except BotoCoreError as error:
                assert not isinstance(error, EndpointConnectionError), error
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def create(self, job: str) -> None:
        try:
            self.sagemaker.create_training_job(
                TrainingJobName=job,
                RoleArn=self.role,
                AlgorithmSpecification={
                    "TrainingImage": f"{REGISTRY}/sagemaker-scikit-learn:1.2-1-cpu-py3",
                    "TrainingInputMode": "File",
                },
                HyperParameters={
                    "sagemaker_program": "train.py",
                    "sagemaker_submit_directory": f"s3://{BUCKET}/source.tar.gz",
                },
                OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
                ResourceConfig={
                    "InstanceType": "ml.t3.medium",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 1,
                },
                StoppingCondition={"MaxRuntimeInSeconds": 600},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUse":  # asked before, unacknowledged
                raise

    def status(self, job: str) -> str:
        described = self.sagemaker.describe_training_job(TrainingJobName=job)
        assert "TrainingJobStatus" in described, described
        if described["TrainingJobStatus"] == "Failed":
            return f"Failed: {described['FailureReason']}"
        return str(described["TrainingJobStatus"])


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path, ROOMY, allow_egress=[f"{ADDRESS}/32"])
    yield made
    end_all(made)


@pytest.mark.timeout(3600)
def test_killed_at_any_moment(server: Kept, ledger: Ledger, extent: Extent) -> None:
    kills, chance = extent.of(5, 100), random.Random(extent.seed)
    server.up(doomed=False)
    role = prepare(server, ledger)
    puts, questions = Puts(server), Questions(server)
    lanes = [Lane(server, ledger, number, role) for number in range(LANES)]
    workers = [Worker(one.act) for one in (puts, questions, *lanes)]
    restarts, places = [], Counter[str]()

    def in_flight(not_before: float) -> bool:
        """A put, a launch and an upload are; and it is one of many such moments."""
        stands = {lane.stands for lane in lanes}
        errors = [worker.error for worker in workers if worker.error is not None]
        assert not errors, errors
        due = time.monotonic() >= not_before and chance.random() < 0.2
        return due and puts.in_flight and {"launch", "upload"} <= stands

    for _ in range(kills):
        moment = time.monotonic() + chance.uniform(0, A_JOB_S)
        until(partial(in_flight, moment), WITHIN_S, every_s=0.002)
        places.update(lane.stands for lane in lanes)
        server.kill()
        begun = time.monotonic()
        until(partial(answers, server), WITHIN_S)
        restarts.append(time.monotonic() - begun)
    for worker in workers:
        worker.stop()
    print(
        f"{kills} kills (seed {extent.seed}); restart: median {statistics.median(restarts):.2f} s, "
        f"longest {max(restarts):.2f} s; jobs at the kills: {dict(places)}; "
        f"{len(puts.acknowledged)} of {len(puts.tried)} puts and {len(questions.answered)} of "
        f"{questions.asked} answers acknowledged, {sum(len(lane.jobs) for lane in lanes)} jobs"
    )
    check_puts(server, puts)
    check_questions(questions)
    check_jobs(server, ledger, lanes)


def prepare(server: Server, ledger: Ledger) -> str:
    """Upload what jobs and endpoint need, wait for the endpoint; return the role."""
    role: str = server.client("iam").list_roles()["Roles"][0]["Arn"]
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    script = SCRIPT.replace("ADDRESS", ADDRESS).replace("PORT", str(ledger.port))
    s3.put_object(Bucket=BUCKET, Key="source.tar.gz", Body=archive({"train.py": script}))
    model = archive({"code/inference.py": INFERENCE})
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=model)
    container = {
        "Image": f"{REGISTRY}/sagemaker-scikit-learn:1.2-1-cpu-py3",
        "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "m",
        "InstanceType": "ml.t2.medium",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="c")
    describe = sagemaker.describe_endpoint
    until(lambda: describe(EndpointName=ENDPOINT)["EndpointStatus"] != "Creating")
    described = describe(EndpointName=ENDPOINT)
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")
    return role


def check_puts(server: Server, puts: Puts) -> None:
    """What was acknowledged is there; nothing is there that was not sent, or only a part of it."""
    s3 = server.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="put/")
    keys = {item["Key"] for page in pages for item in page.get("Contents", [])}
    assert puts.acknowledged, "no put was acknowledged"
    assert puts.acknowledged <= keys <= puts.tried.keys()
    for key in keys:
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == puts.tried[key], key


def check_questions(questions: Questions) -> None:
    """What was answered was asked of the model once; nothing was asked of it twice."""
    counted = {int(number): times for number, times in questions.ask("report").items()}
    assert questions.answered <= counted.keys() <= set(range(1, questions.asked + 1))
    assert set(counted.values()) == {1}


def check_jobs(server: Server, ledger: Ledger, lanes: list[Lane]) -> None:
    """Each job that was created ran once and is Completed, with the model of that very run."""
    s3 = server.client("s3")
    for lane in lanes:
        for job in lane.jobs:
            assert lane.ended[job] == "Completed", (job, lane.ended[job])
            started, ended = ledger.runs(job, "started"), ledger.runs(job, "ended")
            assert len(started) == 1 and ended == started, (job, started, ended)
            body = s3.get_object(Bucket=BUCKET, Key=f"out/{job}/output/model.tar.gz")["Body"]
            with tarfile.open(fileobj=io.BytesIO(body.read())) as tar:
                file = tar.extractfile("run")
                assert file is not None and {file.read().decode()} == started, job
