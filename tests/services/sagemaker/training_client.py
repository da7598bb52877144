"""Training jobs through boto3 against a whole platform."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from typing import Any, Protocol

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:1.8-cpu-py36"
BUCKET = "training-bucket"
GROUP = "/aws/sagemaker/TrainingJobs"
WITHIN_S = 180.0  # a machine that reads torch from a cold disk takes a minute


def wait_for(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """Return the first true value of the condition; AssertionError after the time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s")


def source(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


class Platform(Protocol):
    """Whatever makes boto3 clients."""

    def client(self, service: str) -> Any: ...


class Trainer:
    """A user of the platform who trains."""

    def __init__(self, platform: Platform) -> None:
        self.s3, self.sagemaker = platform.client("s3"), platform.client("sagemaker")
        self.logs, self.cloudwatch = platform.client("logs"), platform.client("cloudwatch")
        self.role = platform.client("iam").list_roles()["Roles"][0]["Arn"]
        self.number = 0
        if BUCKET not in {b["Name"] for b in self.s3.list_buckets()["Buckets"]}:
            self.s3.create_bucket(Bucket=BUCKET)
            self.put("in/a.txt", "A")
            self.put("in/sub/b.txt", "B")

    def put(self, key: str, text: str | bytes) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in listed.get("Contents", [])]

    def request(self, script: str | None = None, **changes: Any) -> dict[str, Any]:
        """Return CreateTrainingJob's parameters for a script (or a request without one)."""
        self.number += 1
        name = f"job-{self.number}"
        hyperparameters = dict(changes.pop("HyperParameters", {}))
        if script is not None:
            uri = self.put(f"{name}/source/sourcedir.tar.gz", source({"hpo.py": script}))
            hyperparameters |= {
                "sagemaker_program": json.dumps("hpo.py"),
                "sagemaker_submit_directory": json.dumps(uri),
            }
        algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
        return {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": algorithm | changes.pop("AlgorithmSpecification", {}),
            "HyperParameters": hyperparameters,
            "InputDataConfig": [channel("training", f"s3://{BUCKET}/in")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        } | changes

    def start(self, script: str | None = None, **changes: Any) -> str:
        request = self.request(script, **changes)
        self.sagemaker.create_training_job(**request)
        name: str = request["TrainingJobName"]
        return name

    def describe(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return answer

    def ended(self, name: str) -> dict[str, Any]:
        """Return the description of a job once it has ended."""

        def look() -> dict[str, Any] | None:
            found = self.describe(name)
            return None if found["TrainingJobStatus"] in ("InProgress", "Stopping") else found

        found: dict[str, Any] = wait_for(look)
        return found

    def train(self, script: str | None = None, **changes: Any) -> dict[str, Any]:
        return self.ended(self.start(script, **changes))

    def completed(self, script: str | None = None, **changes: Any) -> str:
        """Train, and return the job's log; AssertionError when it did not complete."""
        job = self.train(script, **changes)
        log = self.log(job["TrainingJobName"])
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log)
        return log

    def log(self, name: str, host: str = "algo-1") -> str:
        streams = self.logs.describe_log_streams(
            logGroupName=GROUP, logStreamNamePrefix=f"{name}/{host}"
        )["logStreams"]
        lines: list[str] = []
        for stream in streams:
            events = self.logs.get_log_events(
                logGroupName=GROUP, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
            lines += [event["message"] for event in events]
        return "\n".join(lines)

    def says(self, name: str, text: str) -> None:
        """Wait until a line of the job's log is `text`."""
        wait_for(lambda: text in self.log_if_any(name).splitlines())

    def log_if_any(self, name: str) -> str:
        try:
            return self.log(name)
        except self.logs.exceptions.ResourceNotFoundException:
            return ""


def channel(name: str, uri: str, kind: str = "S3Prefix", **more: Any) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": uri}},
    } | more
