"""A tuning job of 12 trials that share the frozen backbone's features, against 12 full scripts.

The trials are training jobs, 3 at a time, with one checkpoint URI; the scripts run one after
another and see every picture again in every epoch. With two augmented views of each picture the
features are computed in two passes instead of one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import Server, cloche_server, compare, cores, timed
from bench.images import ARGUMENTS, BUCKET, EXAMPLE, IMAGE, prepare
from cloche.tour.digits import write_digits
from cloche.tour.folder import ImageFolder, read_folder

TRIALS, PARALLEL = 12, 3
ENDS_WITHIN_S = 1800.0
AIM = "about one pass over the data, and the heads"
SHARED = {name: value for name, value in ARGUMENTS.items() if name != "cache-features"}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as name, cloche_server() as server:
        root = Path(name) / "digits"
        write_digits(root)
        folder = read_folder(root)
        role = prepare(server, folder)
        scripts: Callable[[], object] = lambda: [  # noqa: E731
            script(folder, Path(name), 0.0005 * number) for number in range(1, TRIALS + 1)
        ]
        runs = {
            "12 scripts": [timed(scripts)()],
            "a tuning job": [timed(lambda: tune(server, role, views=1))()],
            "a tuning job, 2 views": [timed(lambda: tune(server, role, views=2))()],
        }
    compare("12 trials", "s", runs, against="12 scripts", aim=AIM)


def script(folder: ImageFolder, work: Path, rate: float) -> None:
    """Run the script by itself, without kept features."""
    options = ARGUMENTS | {"learning_rate": str(rate)}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
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
            "OMP_WAIT_POLICY": "PASSIVE",  # as in a job
        },
        cwd=work,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def tune(server: Server, role: str, *, views: int) -> None:
    """Run the tuning job to its end; RuntimeError when it does not complete."""
    sagemaker, name = server.client("sagemaker"), f"bench-{views}"
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data"}
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig={
            "Strategy": "Bayesian",
            "RandomSeed": 1,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": TRIALS,
                "MaxParallelTrainingJobs": PARALLEL,
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "learning_rate", "MinValue": "0.0005", "MaxValue": "0.05"}
                ]
            },
        },
        TrainingJobDefinition={
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "Testing Loss: ([0-9.]+)"}],
            },
            "RoleArn": role,
            "StaticHyperParameters": {
                **{key: json.dumps(value) for key, value in SHARED.items()},
                "views": json.dumps(str(views)),
                "sagemaker_program": json.dumps("hpo.py"),
                "sagemaker_submit_directory": json.dumps(f"s3://{BUCKET}/code/sourcedir.tar.gz"),
            },
            "InputDataConfig": [
                {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/features"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.2xlarge",
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    )
    counters = ended(sagemaker, name)["TrainingJobStatusCounters"]
    if counters["Completed"] != TRIALS:
        raise RuntimeError(f"the tuning job ended with {counters}")


def ended(sagemaker: Any, name: str) -> dict[str, Any]:
    """Return the description of a tuning job that has ended."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline:
        found: dict[str, Any] = sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        if found["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            return found
        time.sleep(0.5)
    raise RuntimeError(f"{name} does not end")
