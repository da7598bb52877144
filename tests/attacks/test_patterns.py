"""Patterns without an end, given as metric definitions, objectives, rules, filters and policies.

The verdict is the server's: whether others have their answers meanwhile, and the job its end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, IMAGE, Trainer, source, wait_for

from cloche.testing.platform import Platform, start

AT_0E393EC = (
    "At 0e393ec the expression runs in the server's process and holds its interpreter: the health "
    "is not answered again, nor after a restart."
)
ANSWERS_WITHIN_S = 10.0  # on a machine that seven sessions share; without the defence: never
REGISTRY = "dkr.ecr.us-east-1.amazonaws.com"
ENDLESS = {
    "nested": r"(?!x)((?:a+)+)$",
    "alternatives": r"(?!x)((?:a|aa)+)$",
    "reference": r"((?:a*)*)\1b",
    "behind": r"(?<!b)((?:a|a?)+)$",
    "ahead": r"(?=(a+))((?:a?a)+)$",
    "counted": r"((?:a{1,100}){1,100})b",
    "cases": r"(?i)(?!x)((?:[a-z]+)*)$",
    "many": "(?!x)((?:" + "|".join("a" * n for n in range(1, 28)) + ")+)$",
    "lazy": r"(?!x)((?:.*?a){14,}?)$",
}
SCRIPT = """
import os, sys, time
print("loss=0.75", flush=True)
print("a" * 60 + "!", flush=True)
while not os.path.exists("/opt/ml/checkpoints/go"):
    time.sleep(0.1)
print("a" * 60 + "!")
print("y" * 10_000_000)
print(" ".join("1" for _ in range(2000)))
print("loss=0.25", flush=True)
"""


def health(platform: Platform) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(f"{platform.address}/_cloche/health", timeout=ANSWERS_WITHIN_S).read()


@dataclass
class Watch:
    """How long the health took at the longest; `failed`: it was not answered at all."""

    longest_s: float = 0.0
    failed: str = ""


@contextmanager
def watched(platform: Platform) -> Iterator[Watch]:
    """Ask for the health again and again, until the block ends."""
    found, ended = Watch(), threading.Event()

    def ask() -> None:
        while not ended.wait(0.05) and not found.failed:
            begin = time.monotonic()
            try:
                health(platform)
            except OSError as error:
                found.failed = str(error)
            found.longest_s = max(found.longest_s, time.monotonic() - begin)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join(2 * ANSWERS_WITHIN_S)
    assert not found.failed and found.longest_s < ANSWERS_WITHIN_S


def definitions(patterns: dict[str, str]) -> dict[str, Any]:
    metrics = [{"Name": name, "Regex": regex} for name, regex in patterns.items()]
    return {"MetricDefinitions": [*metrics, {"Name": "loss", "Regex": "loss=([0-9.]+)"}]}


@dataclass
class Seen:
    """What is left of a job with all of ENDLESS, which saw the server go and come."""

    job: dict[str, Any]
    log: list[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    home = tmp_path_factory.mktemp("home")
    with start(home) as first:
        trainer = Trainer(first)
        config = {"S3Uri": f"s3://{BUCKET}/checkpoints"}
        algorithm = definitions(ENDLESS)
        with watched(first):
            name = trainer.start(SCRIPT, AlgorithmSpecification=algorithm, CheckpointConfig=config)
            wait_for(lambda: trainer.log_if_any(name).count("is no longer read") == len(ENDLESS))
        first.stop(end_gangs=False)
        port = first.app.config.port
    with start(home, port=port) as again:
        trainer = Trainer(again)
        with watched(again):
            (folder,) = home.glob("instances/*/*/ml/checkpoints")
            (folder / "go").touch()
            job = trainer.ended(name)
        return Seen(job, trainer.log(name).splitlines())


@pytest.mark.control(AT_0E393EC)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_definition_without_an_end_is_given_up_once(seen: Seen, name: str) -> None:
    lines = [line for line in seen.log if f"the metric {name} is no longer read" in line]
    assert len(lines) == 1 and repr(ENDLESS[name]) in lines[0] and "took longer than" in lines[0]
    assert name not in {each["MetricName"] for each in seen.job["FinalMetricDataList"]}


@pytest.mark.control(AT_0E393EC)
def test_the_job_goes_on_and_so_do_its_other_metrics(seen: Seen) -> None:
    assert seen.job["TrainingJobStatus"] == "Completed"
    (loss,) = seen.job["FinalMetricDataList"]
    assert (loss["MetricName"], loss["Value"]) == ("loss", 0.25)


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.mark.control(AT_0E393EC)
def test_an_objective_without_an_end(trainer: Trainer, platform: Platform) -> None:
    uri = trainer.put("tuned.tar.gz", source({"hpo.py": "print('a' * 60 + '!')"}))
    metric = {"Name": "endless", "Regex": ENDLESS["nested"]}
    definition = {
        "StaticHyperParameters": {
            "sagemaker_program": '"hpo.py"',
            "sagemaker_submit_directory": json.dumps(uri),
        },
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [metric],
        },
        "RoleArn": trainer.role,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    config = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "endless"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]
        },
    }

    def ended() -> bool:
        found = trainer.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="endless"
        )
        return found["HyperParameterTuningJobStatus"] != "InProgress"

    with watched(platform):
        trainer.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="endless",
            HyperParameterTuningJobConfig=config,
            TrainingJobDefinition=definition,
        )
        wait_for(ended)


@pytest.mark.control(AT_0E393EC)
def test_a_rule_that_chooses_its_metrics_without_an_end(
    trainer: Trainer, platform: Platform
) -> None:
    rule = {
        "RuleConfigurationName": "loss",
        "RuleEvaluatorImage": f"503895931360.{REGISTRY}/sagemaker-debugger-rules",
        "RuleParameters": {
            "rule_to_invoke": "LossNotDecreasing",
            "tensor_regex": r"(?!x)(?:(?:l+)+)$",
        },
    }
    algorithm = {"MetricDefinitions": [{"Name": "l" * 60 + "!", "Regex": "l=([0-9])"}]}
    with watched(platform):
        job = trainer.train(
            "print('l=1')", AlgorithmSpecification=algorithm, DebugRuleConfigurations=[rule]
        )
    (status,) = job["DebugRuleEvaluationStatuses"]
    assert status["RuleEvaluationStatus"] == "Error"
    assert status["StatusDetails"].startswith("tensor_regex took longer than 1.0 s")


@pytest.mark.control("At 0e393ec forty of them are compiled in the server's loop: 30 s and more.")
@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)(" + "".join(f"[{chr(0x100 + n)}-\U0010fff0]" for n in range(90)) + ")",
        "(?i)(" + "[\x01-\U0010ffff]" * 95 + ")",
        "(?i)(" + "".join(f"[{chr(0x100 + n)}-\U0010fff0x]" for n in range(70)) + ")",
    ],
    ids=("ranges", "repeated", "mixed"),
)
def test_definitions_that_are_hard_to_compile(
    trainer: Trainer, platform: Platform, pattern: str
) -> None:
    metrics = [{"Name": f"m{n}", "Regex": f"{pattern}{n}"} for n in range(40)]
    request = trainer.request(None, AlgorithmSpecification={"MetricDefinitions": metrics})
    with watched(platform), pytest.raises(ClientError) as refused:
        trainer.sagemaker.create_training_job(**request)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert refused.value.response["Error"]["Message"].endswith("it takes too long to compile")


def test_without_a_limit_the_same_expressions_do_not_end() -> None:
    """Python's `re` itself, for a second: what the defence is against."""
    for name, pattern in ENDLESS.items():
        code = f"import re; re.search({pattern!r}, 'a' * 60 + '!')"
        assert not ends_within_a_second(code), name


def ends_within_a_second(code: str) -> bool:
    try:
        subprocess.run([sys.executable, "-I", "-S", "-c", code], timeout=1, check=True)
    except subprocess.TimeoutExpired:
        return False
    return True
