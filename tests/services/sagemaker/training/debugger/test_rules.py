"""Rules of the Debugger and the profiler: judged from what was measured, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer

from cloche.services.sagemaker.training.debugger.rule_report import host_part
from cloche.services.sagemaker.training.debugger.rules import HostSample, Measured, judge
from cloche.testing.platform import Platform

IMAGE = "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest"


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def rule(name: str, called: str | None = None, **parameters: str) -> dict[str, Any]:
    invoked = {"rule_to_invoke": name} if name else {}
    return {
        "RuleConfigurationName": called or name,
        "RuleEvaluatorImage": IMAGE,
        "RuleParameters": invoked | parameters,
    }


def cpu(*values: float) -> Measured:
    return Measured({"algo-1": [HostSample(n, v, 10.0) for n, v in enumerate(values)]}, {})


def loss(*values: float, name: str = "Testing Loss") -> Measured:
    return Measured({}, {name: values})


@pytest.mark.parametrize(
    ("asked", "measured", "status", "details"),
    [
        (rule("CPUBottleneck"), cpu(95, 99, 10), "IssuesFound", "algo-1: 67% of 3 samples above"),
        (rule("CPUBottleneck"), cpu(95, 10, 10), "NoIssuesFound", "algo-1: 33% of 3 samples"),
        (rule("CPUBottleneck"), cpu(95, 99), "Error", "algo-1 has 2 samples of its CPU: too few"),
        (rule("CPUBottleneck", threshold="20"), cpu(95, 10, 10), "IssuesFound", "algo-1: 33%"),
        (rule("CPUBottleneck", patience="1"), cpu(99, 1, 1, 1), "NoIssuesFound", "algo-1: 0% of 3"),
        (rule("CPUBottleneck", cpu_threshold="x"), cpu(1, 1, 1), "Error", "The parameter cpu_thr"),
        *(
            (
                rule("CPUBottleneck", patience=odd),
                cpu(1, 1, 1),
                "Error",
                "The parameter patience is",
            )
            for odd in ("nan", "inf", "1e999", "-1", "9" * 5000, "9" * 50, "1_0", "")
        ),
        *(
            (rule("LossNotDecreasing", num_steps=odd), loss(3, 2, 1), "Error", "The parameter num_")
            for odd in ("nan", "-inf", "1e999", "0x3", "1e40")
        ),
        (rule("CPUBottleneck", other="1"), cpu(1, 1, 1), "Error", "The parameter other is not sup"),
        (rule("CPUBottleneck"), Measured({}, {}), "Error", "No host was measured."),
        (rule("ProfilerReport"), cpu(9, 9, 9), "NoIssuesFound", "CPUBottleneck: algo-1: 0%"),
        (
            rule("ProfilerReport", CPUBottleneck_cpu_threshold="5"),
            cpu(9, 9, 9),
            "IssuesFound",
            "CPUBottleneck: algo-1: 100%",
        ),
        (rule("LossNotDecreasing", num_steps="1"), loss(3, 2, 1), "NoIssuesFound", "Testing Loss"),
        (
            rule("LossNotDecreasing", num_steps="1"),
            loss(3, 2, 2),
            "IssuesFound",
            "Testing Loss: 2 at value 1, 2 at 2",
        ),
        (
            rule("LossNotDecreasing", num_steps="1", diff_percent="60"),
            loss(3, 2),
            "IssuesFound",
            "Testing Loss: 3 at value 0, 2 at 1",
        ),
        (rule("LossNotDecreasing"), loss(3, 2), "Error", "Testing Loss has 2 values: more than"),
        (rule("LossNotDecreasing"), loss(1, name="acc"), "Error", "No losses were saved as"),
        (
            rule("LossNotDecreasing", num_steps="1", tensor_regex="acc"),
            loss(2, 1, name="acc"),
            "NoIssuesFound",
            "acc: decreased",
        ),
        (rule("LossNotDecreasing", tensor_regex="("), loss(1), "Error", "tensor_regex is no"),
        (
            rule("LowGPUUtilization"),
            cpu(1, 1, 1),
            "Error",
            "LowGPUUtilization is not supported by Cloche. These are: CPUBottleneck, ",
        ),
        (rule("", "mine"), cpu(1), "Error", "a custom rule is not supported by Cloche."),
    ],
)
def test_verdicts(asked: dict[str, Any], measured: Measured, status: str, details: str) -> None:
    verdict = judge(asked, measured)
    assert verdict.status == status
    assert verdict.details.startswith(details)


def test_a_host_without_samples_has_an_empty_chart() -> None:
    assert 'points=""' in host_part("algo-1", [])


SCRIPT = """
import time
end = time.monotonic() + 6
while time.monotonic() < end:
    pass
for value in (3, 2, 2.5):
    print('Testing Loss:', value)
"""


def test_rules_end_to_end(trainer: Trainer) -> None:
    """As SDK 2.70 sends them, with rules=[…] besides."""
    hook = {
        "S3OutputPath": f"s3://{BUCKET}/debug",
        "CollectionConfigurations": [{"CollectionName": "losses"}],
    }
    given: dict[str, Any] = {
        "DebugHookConfig": hook,
        "ProfilerConfig": {"S3OutputPath": f"s3://{BUCKET}/prof"},
        "DebugRuleConfigurations": [
            rule("LossNotDecreasing", num_steps="1"),
            rule("VanishingGradient"),
            rule("", "MyOwnRule"),
        ],
        "ProfilerRuleConfigurations": [rule("ProfilerReport", "ProfilerReport-1637800000")],
        "ExperimentConfig": {"ExperimentName": "e", "TrialName": "t"},
    }
    metrics = [{"Name": "loss", "Regex": "Testing Loss: ([0-9.]+)"}]
    name = trainer.start(SCRIPT, AlgorithmSpecification={"MetricDefinitions": metrics}, **given)
    early = trainer.describe(name)
    assert [s["RuleEvaluationStatus"] for s in early["DebugRuleEvaluationStatuses"]] == [
        "InProgress",
        "InProgress",
        "Error",
    ]
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
    assert {key: job[key] for key in given} == given
    assert job["ProfilingStatus"] == "Enabled"
    falling, gradient, own = job["DebugRuleEvaluationStatuses"]
    assert falling["RuleEvaluationStatus"] == "IssuesFound"
    assert falling["StatusDetails"] == "loss: 2 at value 1, 2.5 at 2"
    assert falling["LastModifiedTime"] <= job["LastModifiedTime"]
    assert gradient["RuleEvaluationStatus"] == "Error"
    assert gradient["StatusDetails"].startswith("No tensors were saved: the script needs a hook")
    assert own["RuleEvaluationStatus"] == "Error"
    assert own["StatusDetails"].startswith("a custom rule is not supported by Cloche.")
    (report,) = job["ProfilerRuleEvaluationStatuses"]
    prefix = f"prof/{name}/rule-output/ProfilerReport-1637800000/profiler-output"
    assert trainer.keys(f"prof/{name}/rule-output/") == [
        f"{prefix}/profiler-report.html",
        f"{prefix}/profiler-report.json",
    ]
    content = json.loads(trainer.get(f"{prefix}/profiler-report.json"))
    samples = content["Hosts"]["algo-1"]
    assert len(samples) >= 3
    assert max(sample["cpu_percent"] or 0 for sample in samples) > 0
    assert content["Metrics"] == {"loss": [3, 2, 2.5]}
    assert report["RuleEvaluationStatus"] == content["RuleEvaluationStatus"] != "Error"
    assert "<polyline" in trainer.get(f"{prefix}/profiler-report.html").decode()
    assert trainer.keys(f"debug/{name}/") == [
        f"debug/{name}/rule-output/LossNotDecreasing/report.json",
        f"debug/{name}/rule-output/VanishingGradient/report.json",
    ]
    assert "DebugHookConfig.CollectionConfigurations is not used" in trainer.log(name)


def test_a_job_that_never_ran_has_rules_that_stopped(trainer: Trainer) -> None:
    job = trainer.train(
        "",
        DebugRuleConfigurations=[rule("LossNotDecreasing")],
        CheckpointConfig={"S3Uri": "s3://no-such-bucket/x"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    (status,) = job["DebugRuleEvaluationStatuses"]
    assert status["RuleEvaluationStatus"] == "Stopped"


def test_two_rules_of_one_name_are_refused(trainer: Trainer) -> None:
    with pytest.raises(ClientError, match="must be unique; these are repeated: CPUBottleneck"):
        trainer.start("", ProfilerRuleConfigurations=[rule("CPUBottleneck")] * 2)
