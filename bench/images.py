"""Images a second of the example's hpo.py: as a training job, beside the bare script.

The same script, pictures, arguments and number of CPUs; what counts are the script's own times of
its epochs but the first (in which the loader's processes start), as it writes them to history.json.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import Server, cloche_server, compare, cores, interleave
from cloche.tour.digits import write_digits
from cloche.tour.folder import ImageFolder, read_folder

ROUNDS, EPOCHS = 5, 3
AIM = "within 2% of the bare script"
ENDS_WITHIN_S = 600.0
EXAMPLE = Path(__file__).parents[1] / "examples" / "dog_breeds"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0-cpu-py312"
BUCKET = "bench-images"
ARGUMENTS = {
    "epochs": str(EPOCHS),
    "batch_size": "32",
    "image_size": "96",
    "backbone": "efficientnet-lite0",
    "cache-features": "false",  # each epoch is to see the pictures
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as name, cloche_server() as server:
        root = Path(name) / "digits"
        write_digits(root)
        folder = read_folder(root)
        role = prepare(server, folder)
        numbers = iter(range(1, ROUNDS + 1))
        runs = interleave(
            ROUNDS,
            {
                "bare script": lambda: rate(bare(folder, Path(name)), folder),
                "as a job": lambda: rate(job(server, role, next(numbers)), folder),
            },
        )
    compare("hpo.py", "images/s", runs, against="bare script", aim=AIM)


def rate(history: dict[str, Any], folder: ImageFolder) -> float:
    """Return the images a second of training, the first epoch left out."""
    seconds = [epoch["seconds"] for epoch in history["epochs"][1:]]
    return len(folder.pictures["train"]) * len(seconds) / sum(seconds)


def bare(folder: ImageFolder, work: Path) -> dict[str, Any]:
    """Run the script by itself and return its history."""
    arguments = [word for name, value in ARGUMENTS.items() for word in (f"--{name}", value)]
    count = str(cores())
    subprocess.run(
        [sys.executable, str(EXAMPLE / "hpo.py"), *arguments],
        env=os.environ
        | {
            "SM_CHANNEL_TRAINING": str(folder.root),
            "SM_MODEL_DIR": str(work / "model"),
            "SM_OUTPUT_DATA_DIR": str(work / "output"),
            "SM_NUM_CPUS": count,
            "OMP_NUM_THREADS": count,
        },
        cwd=work,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    history: dict[str, Any] = json.loads((work / "output" / "history.json").read_text())
    return history


def prepare(server: Server, folder: ImageFolder) -> str:
    """Put the pictures and the script into a bucket; return the role that jobs run as."""
    s3 = server.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for path in folder.files:
        s3.upload_file(str(path), BUCKET, f"data/{path.relative_to(folder.root).as_posix()}")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(EXAMPLE.glob("*.py")):
            tar.add(path, path.name)
    s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=buffer.getvalue())
    return server.role()


def job(server: Server, role: str, number: int, hosts: int = 1) -> dict[str, Any]:
    """Run the script as a training job and return its history."""
    sagemaker, name = server.client("sagemaker"), f"images-{number}"
    sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        RoleArn=role,
        HyperParameters={
            **{key: json.dumps(value) for key, value in ARGUMENTS.items()},
            "sagemaker_program": json.dumps("hpo.py"),
            "sagemaker_submit_directory": json.dumps(f"s3://{BUCKET}/code/sourcedir.tar.gz"),
        },
        InputDataConfig=[
            {
                "ChannelName": "training",
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data"}
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
        ResourceConfig={
            "InstanceType": "ml.m5.2xlarge",
            "InstanceCount": hosts,
            "VolumeSizeInGB": 30,
        },
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    wait(sagemaker, name)
    key = f"out/{name}/output/output.tar.gz"
    body = server.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        member = next(m for m in tar if Path(m.name).name == "history.json")
        content = tar.extractfile(member)
        assert content is not None
        history: dict[str, Any] = json.load(content)
    return history


def wait(sagemaker: Any, name: str) -> None:
    """Return when the job is done; RuntimeError when it failed."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline:
        job = sagemaker.describe_training_job(TrainingJobName=name)
        if job["TrainingJobStatus"] == "Completed":
            return
        if job["TrainingJobStatus"] != "InProgress":
            raise RuntimeError(f"{name}: {job['TrainingJobStatus']}, {job.get('FailureReason')}")
        time.sleep(0.5)
    raise RuntimeError(f"{name} does not end")
