"""Scripts that import smdebug, unmodified: their hooks collect tensors, which go to S3."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from training_client import BUCKET, Trainer, source, wait_for

from cloche.environments.ready import ready
from cloche.environments.table import FRAMEWORKS
from cloche.testing.platform import Platform

pytestmark = pytest.mark.torch
SMDEBUG = next(framework for framework in FRAMEWORKS if framework.name == "smdebug")
# As the training scripts of courses have it.
SCRIPT = """
import numpy
import torch
import torch.nn as nn
import smdebug.pytorch as smd
from smdebug import modes
from smdebug.profiler.utils import str2bool
from smdebug.pytorch import get_hook

net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
loss = nn.CrossEntropyLoss()
hook = get_hook(create_if_not_exists=True)
print("hook:", hook is not None)
if hook:
    hook.register_hook(net)
    hook.register_loss(loss)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
torch.manual_seed(1)
data, labels = torch.randn(16, 4), torch.randint(0, 3, (16,))
for epoch in range(2):
    if hook:
        hook.set_mode(modes.TRAIN)
    for _ in range(10):
        optimizer.zero_grad()
        loss(net(data), labels).backward()
        optimizer.step()
    if hook:
        hook.set_mode(modes.EVAL)
    with torch.no_grad():
        print("loss", loss(net(data), labels).item())
"""
HOOK = {
    "S3OutputPath": f"s3://{BUCKET}/debugged",
    "HookParameters": {"train.save_interval": "5", "eval.save_interval": "1"},
    "CollectionConfigurations": [
        {"CollectionName": "losses"},
        {"CollectionName": "weights", "CollectionParameters": {"train.save_interval": "10"}},
    ],
}
READ = """
import json, sys
from smdebug.core.modes import ModeKeys
from smdebug.trials import create_trial
trial = create_trial(sys.argv[1])
steps = {name: trial.tensor(name).steps(mode=ModeKeys.TRAIN) for name in trial.tensor_names()}
loss = trial.tensor("CrossEntropyLoss_output_0")
values = [float(loss.value(step, mode=ModeKeys.EVAL)) for step in loss.steps(mode=ModeKeys.EVAL)]
print(json.dumps([steps, values]))
"""


# What the rules look for: a layer that gets no gradient, and validation that is another matter.
RULED = """
import sys
import torch
import torch.nn as nn
import smdebug.pytorch as smd

bad = sys.argv[-1] == "bad"
torch.manual_seed(1)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
if bad:
    nn.init.zeros_(net[2].weight)
    net[2].weight.requires_grad = False
loss = nn.CrossEntropyLoss()
hook = smd.Hook.create_from_json_file()
hook.register_hook(net)
hook.register_loss(loss)
optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.2)
data = torch.randn(64, 4)
labels = (data[:, 0] > 0).long()
if bad:
    labels[:] = 1
for epoch in range(4):
    hook.set_mode(smd.modes.TRAIN)
    for _ in range(10):
        optimizer.zero_grad()
        loss(net(data), labels).backward()
        optimizer.step()
    hook.set_mode(smd.modes.EVAL)
    with torch.no_grad():
        for _ in range(2):
            loss(net(data), 1 - labels if bad else labels)
"""
RULES = (
    "LossNotDecreasing",
    "Overfit",
    "Overtraining",
    "PoorWeightInitialization",
    "VanishingGradient",
)


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture(scope="module")
def described(trainer: Trainer) -> dict[str, Any]:
    """A job with a hook, which has ended; its environment was built for it."""
    name = trainer.start(SCRIPT, DebugHookConfig=HOOK)
    # It stays for as long as the build takes; before it there is "Downloading input data".
    text = (
        "Downloading the training image: building its environment smdebug, once, with "
        "smdebug==1.0.34, protobuf==3.20.3, numpy>=1.23,<2.3"
    )
    wait_for(
        lambda: trainer.describe(name)["SecondaryStatusTransitions"][-1]["StatusMessage"] == text
    )
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", (job["FailureReason"], trainer.log(name))
    return job


def python(platform: Platform, code: str, argument: str) -> str:
    """Run a notebook's code as a user who has installed smdebug; return what it printed."""
    environment = ready(SMDEBUG, platform.home)
    assert environment is not None
    found = subprocess.run(
        [str(environment.python), "-c", code, argument],
        env={**os.environ, **platform.environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_hook_collects_tensors_to_s3(
    trainer: Trainer, platform: Platform, described: dict[str, Any]
) -> None:
    """smdebug's own reader finds them, where the SDK says they are."""
    name = described["TrainingJobName"]
    assert "hook: True" in trainer.log(name).splitlines()
    printed = python(platform, READ, f"s3://{BUCKET}/debugged/{name}/debug-output")
    steps, values = json.loads(printed.splitlines()[-1])
    assert steps["CrossEntropyLoss_output_0"] == [0, 5, 10, 15]
    assert steps["Sequential_0.weight"] == [0, 10]
    losses = [line.split()[1] for line in trainer.log(name).splitlines() if line.startswith("loss")]
    assert values == pytest.approx([float(value) for value in losses])


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_rules_are_judged_by_the_tensors(trainer: Trainer, kind: str) -> None:
    """As SDK 2.x sends them; what one job has, the other has not."""
    every = {"CollectionParameters": {"save_interval": "2"}}
    hook = {
        "S3OutputPath": f"s3://{BUCKET}/ruled",
        "CollectionConfigurations": [
            {"CollectionName": "losses", "CollectionParameters": {"save_interval": "1"}},
            {"CollectionName": "gradients", **every},
        ],
    }
    rules = [
        {
            "RuleConfigurationName": name,
            "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest",
            "RuleParameters": {"rule_to_invoke": name, **more},
        }
        for name, more in (
            ("LossNotDecreasing", {"num_steps": "5", "mode": "TRAIN"}),
            ("Overfit", {}),
            ("Overtraining", {"delta": "0.0001", "patience_validation": "5"}),
            ("PoorWeightInitialization", {}),
            ("VanishingGradient", {}),
        )
    ]
    name = trainer.start(
        RULED,
        DebugHookConfig=hook,
        DebugRuleConfigurations=rules,
        HyperParameters={"kind": f'"{kind}"'},
    )
    early = trainer.describe(name)["DebugRuleEvaluationStatuses"]
    assert {one["RuleEvaluationStatus"] for one in early} == {"InProgress"}
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
    said = {
        one["RuleConfigurationName"]: (one["RuleEvaluationStatus"], one.get("StatusDetails"))
        for one in job["DebugRuleEvaluationStatuses"]
    }
    if kind == "good":
        assert said == dict.fromkeys(RULES, ("NoIssuesFound", None))
        return
    met = "RuleEvaluationConditionMet: Evaluation of the rule {} at step {} resulted in the "
    vanished = met.format("VanishingGradient", 0) + "condition being met"
    assert said["VanishingGradient"] == ("IssuesFound", vanished)
    overfit = met.format("Overfit", 23) + "condition being met"
    assert said["Overfit"] == ("IssuesFound", overfit)
    assert said["PoorWeightInitialization"][0] == "IssuesFound"
    assert said["Overtraining"][0] == "IssuesFound"
    assert said["LossNotDecreasing"] == ("NoIssuesFound", None)
    reports = [key.split("/")[-2] for key in trainer.keys(f"ruled/{name}/rule-output/")]
    assert reports == sorted(RULES)


WATCHED = """
from smdebug.profiler.system_metrics_reader import S3SystemMetricsReader
import json, sys
reader = S3SystemMetricsReader(sys.argv[1])
reader.refresh_event_file_list()
last = reader.get_timestamp_of_latest_available_file()
events = reader.get_events(0, last + 120_000_000)
print(json.dumps([[e.node_id, e.type, e.name, e.dimension, e.value] for e in events]))
"""


@pytest.mark.usefixtures("described")
def test_notebooks_find_the_profile(trainer: Trainer, platform: Platform) -> None:
    """What TrainingJob of smdebug's notebook tools waits for, without end, and reads."""
    busy = "import time\nend = time.time() + 3\nwhile time.time() < end: sum(range(1000))"
    two = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    config = {"S3OutputPath": f"s3://{BUCKET}/profiled/", "ProfilingIntervalInMilliseconds": 500}
    name = trainer.start(busy, ProfilerConfig=config, ResourceConfig=two)
    assert trainer.ended(name)["TrainingJobStatus"] == "Completed"
    keys = trainer.keys(f"profiled/{name}/profiler-output/system/incremental/")
    assert {key.split(".")[-2] for key in keys} == {"algo-1", "algo-2"}
    found = python(platform, WATCHED, f"s3://{BUCKET}/profiled/{name}/profiler-output")
    events = json.loads(found.splitlines()[-1])
    assert {tuple(event[:4]) for event in events} == {
        (host, *what)
        for host in ("algo-1", "algo-2")
        for what in (("cpu", "cpu0", "CPUUtilization"), ("memory", "MemoryUsedPercent", "Memory"))
    }
    # One busy thread is half of an ml.m5.large, where nobody else wants the machine's CPUs.
    assert max(event[4] for event in events if event[1] == "cpu") > 20
    assert all(0 <= event[4] <= 110 for event in events)


def test_no_profile_where_the_profiler_is_off(trainer: Trainer) -> None:
    config = {"S3OutputPath": f"s3://{BUCKET}/off/", "DisableProfiler": True}
    name = trainer.start("import time; time.sleep(2.5)", ProfilerConfig=config)
    assert trainer.ended(name)["TrainingJobStatus"] == "Completed"
    assert trainer.keys(f"off/{name}/profiler-output/") == []


def test_log_says_what_runs(trainer: Trainer, described: dict[str, Any]) -> None:
    """Torch is the base's; NumPy and protobuf are older than there."""
    heading = next(
        line
        for line in trainer.log(described["TrainingJobName"]).splitlines()
        if line.startswith("Cloche runs ")
    )
    assert heading.startswith("Cloche runs smdebug: Python ")
    assert ", torch 2." in heading and ", numpy 2.2." in heading and ", smdebug 1.0.34" in heading
    assert ", protobuf 3.20.3" in heading


def test_next_job_starts_at_once(trainer: Trainer, described: dict[str, Any]) -> None:
    """It is built once; without a hook configuration there is no hook, as on AWS."""
    name = trainer.start(SCRIPT)
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", trainer.log(name)
    assert "hook: False" in trainer.log(name).splitlines()
    assert not any("building" in t["StatusMessage"] for t in job["SecondaryStatusTransitions"])


def test_commands_of_the_base_run_here(trainer: Trainer, described: dict[str, Any]) -> None:
    """torchrun is PyTorch's: its processes find smdebug all the same."""
    script = "import smdebug, numpy; print('numpy', numpy.__version__)"
    uri = trainer.put("launched/sourcedir.tar.gz", source({"hpo.py": script}))
    job = trainer.start(
        HyperParameters={
            "sagemaker_program": '"hpo.py"',
            "sagemaker_submit_directory": f'"{uri}"',
            "sagemaker_torch_distributed_enabled": "true",
        }
    )
    assert trainer.ended(job)["TrainingJobStatus"] == "Completed", trainer.log(job)
    assert any(line.startswith("numpy 2.2.") for line in trainer.log(job).splitlines())


def test_others_stay_as_they_are(trainer: Trainer) -> None:
    """A script without smdebug runs in the plain environment, and is told of an idle hook."""
    job = trainer.start("print('import smdebug')", DebugHookConfig=HOOK)
    assert trainer.ended(job)["TrainingJobStatus"] == "Completed"
    log = trainer.log(job).splitlines()
    assert log[0].startswith("Cloche runs pytorch: ")
    assert log[1] == (
        "DebugHookConfig.CollectionConfigurations is not used: tensors are collected for "
        "PyTorch scripts that import smdebug"
    )
