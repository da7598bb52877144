"""Jobs outlive the server, unless they are asked to stop with it."""

import json
import os
import signal
from pathlib import Path

import pytest
import small_job
from cli_command import Cloche, until

from cloche.cli.down import farewell, is_alive
from cloche.core.config import Home

pytestmark = pytest.mark.torch  # the framework image stands for an environment with torch

SCRIPT = """
import os, pathlib, time
print("first line", flush=True)
time.sleep({seconds})
print("last line", flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_text("42")
"""


def start_job(cloche: Cloche, seconds: int) -> None:
    """Start job-1 and return once its script runs."""
    role = json.loads((cloche.home / "credentials.json").read_text())["role_arn"]
    script = SCRIPT.format(seconds=seconds)
    small_job.start(cloche.client("s3"), cloche.client("sagemaker"), role, script)
    until(lambda: log(cloche).count("first line") == 1, 60)


def log(cloche: Cloche) -> str:
    return small_job.log(cloche.client("logs"))


def job_status(cloche: Cloche) -> str:
    return small_job.status(cloche.client("sagemaker"))


def test_a_job_goes_on_without_the_server_and_is_finished_once(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 10)
    pid = cloche.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    assert job_status(cloche) == "InProgress"  # as the next server says
    until(lambda: cloche.pid != pid)
    said = cloche("down").stdout
    assert "1 job (job-1) keeps running; `cloche up` picks it up." in said
    cloche.up()
    until(lambda: job_status(cloche) == "Completed", 60)
    assert log(cloche).count("first line") == log(cloche).count("last line") == 1
    keys = cloche.client("s3").list_objects_v2(Bucket="jobs", Prefix="out/")["Contents"]
    assert [key["Key"] for key in keys] == ["out/job-1/output/model.tar.gz"]


def test_down_says_what_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert farewell(home, [], []) == "Cloche is down; everything is kept."
    assert farewell(home, ["a", "b"], ["c"]) == (
        "Cloche is down. 2 jobs (a, b) and 1 endpoint (c) keep running; "
        f"`cloche up --home {tmp_path}` picks them up."
    )


def test_jobs_stop_with_the_server_when_asked(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 600)
    shown = cloche("status").stdout
    assert "1 running: job-1" in shown
    assert ("MiB by 1 fork server, so" in shown) == ("Full isolation" in shown)
    said = cloche("down", "--stop-jobs").stdout
    assert "Stopping 1 job: job-1" in said and "Cloche is down; everything is kept." in said
    cloche.up()
    assert job_status(cloche) == "Stopped"
    assert "last line" not in log(cloche)


def test_a_search_stops_before_its_jobs_so_that_it_starts_no_new_ones(cloche: Cloche) -> None:
    cloche.up()
    s3, sagemaker = cloche.client("s3"), cloche.client("sagemaker")
    s3.create_bucket(Bucket="jobs")
    script = SCRIPT.format(seconds=600)
    s3.put_object(Bucket="jobs", Key="code.tar.gz", Body=small_job.archive("script.py", script))
    metric = {"Name": "loss", "Regex": "loss ([0-9.]+)"}
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="search",
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {
                "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}]
            },
        },
        TrainingJobDefinition={
            "RoleArn": json.loads((cloche.home / "credentials.json").read_text())["role_arn"],
            "AlgorithmSpecification": {
                "TrainingImage": small_job.IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [metric],
            },
            "StaticHyperParameters": {
                "sagemaker_program": '"script.py"',
                "sagemaker_submit_directory": '"s3://jobs/code.tar.gz"',
            },
            "OutputDataConfig": {"S3OutputPath": "s3://jobs/out"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    )
    until(lambda: log(cloche).count("first line") == 1, 60)
    cloche("down", "--stop-jobs")
    cloche.up()
    (search,) = cloche.client("sagemaker").list_hyper_parameter_tuning_jobs()[
        "HyperParameterTuningJobSummaries"
    ]
    assert search["HyperParameterTuningJobStatus"] == "Stopped"
    assert search["TrainingJobStatusCounters"]["Stopped"] == 1
    jobs = cloche.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Stopped"]
