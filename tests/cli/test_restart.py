"""Jobs outlive the server, unless they are asked to stop with it."""

import io
import json
import os
import signal
import tarfile

import pytest
from cli_command import Cloche, until

from cloche.cli.down import is_alive

pytestmark = pytest.mark.torch  # the framework image stands for an environment with torch

SCRIPT = """
import os, pathlib, sys, time
print("first line", flush=True)
go_on = pathlib.Path(os.environ["SM_CHANNEL_TRAINING"], "seconds").read_text()
time.sleep(float(go_on))
print("last line", flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_text("42")
"""
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"


def start_job(cloche: Cloche, seconds: float) -> None:
    """Start job-1 and return once its script runs."""
    s3, sagemaker = cloche.client("s3"), cloche.client("sagemaker")
    s3.create_bucket(Bucket="jobs")
    s3.put_object(Bucket="jobs", Key="code.tar.gz", Body=archive("script.py", SCRIPT))
    s3.put_object(Bucket="jobs", Key="in/seconds", Body=str(seconds).encode())
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://jobs/in/"}}
    sagemaker.create_training_job(
        TrainingJobName="job-1",
        RoleArn=json.loads((cloche.home / "credentials.json").read_text())["role_arn"],
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={
            "sagemaker_program": '"script.py"',
            "sagemaker_submit_directory": '"s3://jobs/code.tar.gz"',
        },
        InputDataConfig=[{"ChannelName": "training", "DataSource": source}],
        OutputDataConfig={"S3OutputPath": "s3://jobs/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    until(lambda: log(cloche).count("first line") == 1, 60)


def archive(name: str, text: str) -> bytes:
    """Return a tar.gz with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def log(cloche: Cloche) -> str:
    """Return the job's log."""
    logs = cloche.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    try:
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    except logs.exceptions.ResourceNotFoundException:
        return ""
    events = [
        event["message"]
        for stream in streams
        for event in logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
        )["events"]
    ]
    return "\n".join(events)


def job_status(cloche: Cloche) -> str:
    """Return the job's status."""
    told = cloche.client("sagemaker").describe_training_job(TrainingJobName="job-1")
    return str(told["TrainingJobStatus"])


def test_a_job_goes_on_without_the_server_and_is_finished_once(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 10)
    pid = cloche.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    cloche.up()
    assert job_status(cloche) == "InProgress"
    said = cloche("down").stdout
    assert "1 job goes on running (job-1); `cloche up` picks it up" in said
    cloche.up()
    until(lambda: job_status(cloche) == "Completed", 60)
    assert log(cloche).count("first line") == log(cloche).count("last line") == 1
    keys = cloche.client("s3").list_objects_v2(Bucket="jobs", Prefix="out/")["Contents"]
    assert [key["Key"] for key in keys] == ["out/job-1/output/model.tar.gz"]


def test_jobs_stop_with_the_server_when_asked(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 600)
    said = cloche("down", "--stop-jobs").stdout
    assert "Stopping 1 job: job-1" in said and "Cloche is down; everything is kept." in said
    cloche.up()
    assert job_status(cloche) == "Stopped"
    assert "last line" not in log(cloche)
