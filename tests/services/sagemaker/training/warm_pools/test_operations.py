"""Warm pools through boto3: what the operations answer and refuse, on a whole platform."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import BUCKET, Trainer, wait_for

from cloche.testing.platform import Platform, start

KEEPS = """
import os
cache = '/opt/ml/sagemaker/warmpoolcache'
print('found', sorted(os.listdir(cache)), os.stat(cache).st_uid)
os.makedirs(cache + '/pip/http', exist_ok=True)
open(cache + '/pip/http/wheel', 'a').write('x')
os.symlink('/etc/passwd', cache + '/link%d' % len(os.listdir(cache)))
os.chmod(cache + '/pip', 0o500)
"""
WAITS = """
import time
print('READY', flush=True)
time.sleep(100)
"""


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def instances(keep_s: int, **changes: Any) -> dict[str, Any]:
    """Return a ResourceConfig; a test has a volume's size of its own, so that no other matches."""
    return {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "KeepAlivePeriodInSeconds": keep_s,
    } | changes


def update(trainer: Trainer, name: str, **members: Any) -> Any:
    return trainer.sagemaker.update_training_job(TrainingJobName=name, **members)


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    said = error.value.response["Error"]
    return said["Code"], said["Message"]


def names(trainer: Trainer, status: str) -> list[str]:
    listed = trainer.sagemaker.list_training_jobs(WarmPoolStatusEquals=status, MaxResults=100)
    summaries = listed["TrainingJobSummaries"]
    assert {s["WarmPoolStatus"]["Status"] for s in summaries} <= {status}
    return [summary["TrainingJobName"] for summary in summaries]


def test_life_of_a_pool(trainer: Trainer, platform: Platform) -> None:
    config = instances(600, VolumeSizeInGB=2)
    first = trainer.train(KEEPS, ResourceConfig=config)
    name = first["TrainingJobName"]
    assert first["TrainingJobStatus"] == "Completed", trainer.log(name)
    assert first["WarmPoolStatus"] == {"Status": "Available"}
    assert first["ResourceConfig"] == config
    assert name in names(trainer, "Available")
    log = trainer.completed(KEEPS, ResourceConfig=config)
    assert "found ['link1', 'pip'] 0" in log.splitlines()
    reused = trainer.describe(name)["WarmPoolStatus"]
    second = reused["ReusedByJob"]
    assert reused["Status"] == "Reused"
    assert isinstance(reused["ResourceRetainedBillableTimeInSeconds"], int)
    assert name in names(trainer, "Reused") and second in names(trainer, "Available")
    assert len(list(platform.home.warm_pools.iterdir())) == 1
    with pytest.raises(ClientError) as error:
        trainer.sagemaker.delete_training_job(TrainingJobName=second)
    assert refused(error) == (
        "ResourceInUse",
        "The request was rejected because the training job retains a warm pool in status "
        "Available. Wait for its end, or end it by UpdateTrainingJob with "
        "ResourceConfig.KeepAlivePeriodInSeconds 0.",
    )
    trainer.sagemaker.delete_training_job(TrainingJobName=name)
    answer = update(trainer, second, ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    assert answer["TrainingJobArn"] == trainer.describe(second)["TrainingJobArn"]
    wait_for(lambda: second in names(trainer, "Terminated"))
    wait_for(lambda: not list(platform.home.warm_pools.iterdir()))
    trainer.sagemaker.delete_training_job(TrainingJobName=second)


def test_a_pool_ends_by_itself(trainer: Trainer, platform: Platform) -> None:
    name = trainer.train("", ResourceConfig=instances(1, VolumeSizeInGB=3))["TrainingJobName"]
    wait_for(lambda: name in names(trainer, "Terminated"))
    spent = trainer.describe(name)["WarmPoolStatus"]["ResourceRetainedBillableTimeInSeconds"]
    assert spent == 1
    wait_for(lambda: not list(platform.home.warm_pools.iterdir()))


def test_a_pool_outlives_its_server(tmp_path: Any) -> None:
    with start(tmp_path) as first:
        config = instances(600)
        Trainer(first).completed(KEEPS, ResourceConfig=config)
    with start(tmp_path) as second:
        user = Trainer(second)
        user.number = 1
        assert names(user, "Available") == ["job-1"]
        assert "found ['link1', 'pip'] 0" in user.completed(KEEPS, ResourceConfig=config)


def test_a_period_is_updated_while_the_pool_is_available_only(trainer: Trainer) -> None:
    longer = {"ResourceConfig": {"KeepAlivePeriodInSeconds": 60}}
    only = "KeepAlivePeriodInSeconds can only be updated while its warm pool is Available."
    running = trainer.start(WAITS, ResourceConfig=instances(1, VolumeSizeInGB=4))
    trainer.says(running, "READY")
    assert running in names(trainer, "InUse")
    with pytest.raises(ClientError) as error:
        update(trainer, running, **longer)
    rejected = "The request was rejected because the training job has"
    in_use = f"{rejected} a warm pool in status InUse; {only}"
    assert refused(error) == ("ValidationException", in_use)
    trainer.sagemaker.stop_training_job(TrainingJobName=running)
    assert trainer.ended(running)["TrainingJobStatus"] == "Stopped"
    assert running in names(trainer, "Available") + names(trainer, "Terminated")
    wait_for(lambda: running in names(trainer, "Terminated"))
    with pytest.raises(ClientError) as error:
        update(trainer, running, **longer)
    assert refused(error)[1] == f"{rejected} a warm pool in status Terminated; {only}"
    without = trainer.train("")["TrainingJobName"]
    assert "WarmPoolStatus" not in trainer.describe(without)
    with pytest.raises(ClientError) as error:
        update(trainer, without, **longer)
    assert refused(error)[1] == f"{rejected} no warm pool; {only}"
    with pytest.raises(ClientError) as error:
        update(trainer, "nobody", **longer)
    assert refused(error) == ("ValidationException", "Requested resource not found.")


GROUP = {"InstanceGroupName": "g", "InstanceType": "ml.m5.large", "InstanceCount": 1}
ALONE = "Invalid ResourceConfig.KeepAlivePeriodInSeconds. Warm pools can not be used with"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "EnableManagedSpotTraining": True,
                "ResourceConfig": instances(60, VolumeSizeInGB=1),
                "StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9},
            },
            f"{ALONE} managed spot training.",
        ),
        (
            {
                "ResourceConfig": {
                    "InstanceGroups": [GROUP],
                    "VolumeSizeInGB": 1,
                    "KeepAlivePeriodInSeconds": 60,
                }
            },
            f"{ALONE} heterogeneous clusters (InstanceGroups).",
        ),
        (
            {"ResourceConfig": instances(21_601, VolumeSizeInGB=1)},
            "1 validation error detected: Value '21601' at "
            "'resourceConfig.keepAlivePeriodInSeconds' failed to satisfy constraint: Member must "
            "have value less than or equal to 21600",
        ),
        (
            {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/c", "LocalPath": "/opt/ml/sagemaker"}},
            "Invalid CheckpointConfig.LocalPath: /opt/ml/sagemaker. It must be an absolute path, "
            "and none that the system or the training job itself uses; leave it out for the "
            "default.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_where_there_are_no_pools(trainer: Trainer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as error:
        trainer.start("", **changes)
    assert refused(error) == ("ValidationException", message)


def test_a_period_of_nothing_is_none(trainer: Trainer) -> None:
    job = trainer.train("", ResourceConfig=instances(0, VolumeSizeInGB=1))
    assert job["TrainingJobStatus"] == "Completed" and "WarmPoolStatus" not in job


def rule(name: str, called: str, invoked: str) -> dict[str, Any]:
    image = "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest"
    return {
        "RuleConfigurationName": called,
        "RuleEvaluatorImage": image,
        "RuleParameters": {name: invoked},
    }


def test_the_profiler_of_a_running_job_is_updated(trainer: Trainer) -> None:
    asked = {"DisableProfiler": True}
    running = trainer.start(WAITS, ProfilerConfig=asked)
    trainer.says(running, "READY")
    with pytest.raises(ClientError) as error:
        update(trainer, running, RemoteDebugConfig={"EnableRemoteDebug": True})
    what = "Cloche does not support RemoteDebugConfig.EnableRemoteDebug."
    assert refused(error) == ("ValidationException", what)
    update(trainer, running, RemoteDebugConfig={"EnableRemoteDebug": False})
    new = rule("rule_to_invoke", "report", "ProfilerReport")
    update(
        trainer,
        running,
        ProfilerConfig={"S3OutputPath": f"s3://{BUCKET}/prof"},
        ProfilerRuleConfigurations=[new],
    )
    update(trainer, running, ProfilerConfig={"ProfilingIntervalInMilliseconds": 500})
    found = trainer.describe(running)
    assert found["ProfilingStatus"] == "Enabled"
    assert found["ProfilerConfig"] == {
        "S3OutputPath": f"s3://{BUCKET}/prof",
        "ProfilingIntervalInMilliseconds": 500,
    }
    assert found["ProfilerRuleConfigurations"] == [new]
    with pytest.raises(ClientError) as error:
        update(trainer, running, ProfilerRuleConfigurations=[new])
    assert refused(error)[1] == (
        "The names of ProfilerRuleConfigurations must be unique; these are repeated: report."
    )
    trainer.sagemaker.stop_training_job(TrainingJobName=running)
    ended = trainer.ended(running)
    (status,) = ended["ProfilerRuleEvaluationStatuses"]
    assert status["RuleEvaluationStatus"] in ("NoIssuesFound", "IssuesFound", "Error")
    assert trainer.keys(f"prof/{running}/rule-output/report/"), "the rule was judged"
    with pytest.raises(ClientError) as error:
        update(trainer, running, ProfilerConfig={"DisableProfiler": True})
    assert refused(error)[1] == (
        "The request was rejected because the training job is in status Stopped; its profiler "
        "can only be updated while it trains."
    )


def test_rules_are_not_judged_when_the_profiler_was_turned_off(trainer: Trainer) -> None:
    new = rule("rule_to_invoke", "report", "ProfilerReport")
    running = trainer.start(WAITS, ProfilerRuleConfigurations=[new])
    update(trainer, running, ProfilerConfig={"DisableProfiler": True})
    trainer.says(running, "READY")
    trainer.sagemaker.stop_training_job(TrainingJobName=running)
    (status,) = trainer.ended(running)["ProfilerRuleEvaluationStatuses"]
    assert (status["RuleEvaluationStatus"], status["StatusDetails"]) == (
        "Stopped",
        "The profiler is disabled.",
    )
    assert trainer.keys(f"out/{running}/rule-output/") == []
