"""A training job of one script, started with boto3 alone."""

import io
import tarfile
from typing import Any

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"


def start(s3: Any, sagemaker: Any, role: str, script: str, **changes: Any) -> None:
    """Start job-1, which runs `script`; `changes` are further parameters of CreateTrainingJob."""
    s3.create_bucket(Bucket="jobs")
    s3.put_object(Bucket="jobs", Key="code.tar.gz", Body=archive("script.py", script))
    sagemaker.create_training_job(
        TrainingJobName="job-1",
        RoleArn=role,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={
            "sagemaker_program": '"script.py"',
            "sagemaker_submit_directory": '"s3://jobs/code.tar.gz"',
        },
        OutputDataConfig={"S3OutputPath": "s3://jobs/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
        **changes,
    )


def log(logs: Any) -> str:
    """Return what the jobs wrote so far."""
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


def status(sagemaker: Any) -> str:
    """Return the job's status."""
    return str(sagemaker.describe_training_job(TrainingJobName="job-1")["TrainingJobStatus"])


def archive(name: str, text: str) -> bytes:
    """Return a tar.gz with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()
