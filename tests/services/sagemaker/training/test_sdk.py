"""The SageMaker Python SDK 2.x trains, unpatched, in the environment that `cloche env` exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from training_client import Trainer, wait_for

from cloche.testing.platform import Platform

sagemaker = pytest.importorskip("sagemaker")
pytorch = pytest.importorskip("sagemaker.pytorch")
analytics = pytest.importorskip("sagemaker.analytics")

SCRIPT = """
import argparse, os, time
parser = argparse.ArgumentParser()
parser.add_argument('--learning_rate', type=float)
parser.add_argument('--backend')
parser.add_argument('--data', default=os.environ['SM_CHANNEL_TRAINING'])
args = parser.parse_args()
print('arguments', args.learning_rate, args.backend, sorted(os.listdir(args.data)))
for epoch in range(3):
    print(f'Testing Loss: {1 / (epoch + 1):.4f}')
with open(os.environ['SM_MODEL_DIR'] + '/model.pth', 'w') as file:
    file.write('weights')
"""

WHERE = """
import os
env = os.environ
group, of = env['SM_CURRENT_INSTANCE_GROUP'], env['SM_CURRENT_INSTANCE_TYPE']
print(env['SM_CURRENT_HOST'], 'in', group, 'of', of)
"""


CACHES = """
import os, pathlib
cache = pathlib.Path(os.environ['SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY'])
print('found', sorted(each.name for each in cache.iterdir()))
(cache / os.environ['SM_HP_NAME']).write_text('x')
"""

TRAINS_ON = """
import time
time.sleep(100)
"""


@pytest.fixture
def session(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """What a user of `cloche run` gets."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield sagemaker.Session()


def on_one_instance(source: Path, **more: Any) -> Any:
    """Return an estimator of the script `hpo.py` in this folder."""
    return pytorch.PyTorch(
        entry_point="hpo.py",
        source_dir=str(source),
        role=sagemaker.get_execution_role(),
        framework_version="2.1",
        py_version="py310",
        instance_count=1,
        instance_type="ml.m5.large",
        **more,
    )


def test_fit_with_logs_attach_and_analytics(
    session: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hpo.py").write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("a")
    bucket = session.default_bucket()  # type: ignore[attr-defined]
    inputs = session.upload_data(str(tmp_path / "data"), bucket, "data")  # type: ignore[attr-defined]
    estimator = pytorch.PyTorch(
        entry_point="hpo.py",
        source_dir=str(tmp_path),
        role=sagemaker.get_execution_role(),
        framework_version="1.8",
        py_version="py36",
        instance_count=1,
        instance_type="ml.m5.2xlarge",
        hyperparameters={"learning_rate": 0.1, "backend": "gloo"},
        metric_definitions=[{"Name": "test loss", "Regex": "Testing Loss: ([0-9.]+)"}],
        tags=[{"Key": "who", "Value": "me"}],
    )
    estimator.fit({"training": inputs}, logs=True)
    printed = capsys.readouterr().out
    assert "arguments 0.1 gloo ['a.txt']" in printed
    assert "Testing Loss: 0.3333" in printed
    assert "Training job completed" in printed and "Billable seconds:" in printed
    name = estimator.latest_training_job.name
    assert estimator.model_data.endswith(f"/{name}/output/model.tar.gz")

    attached = pytorch.PyTorch.attach(name)
    assert attached.hyperparameters()["learning_rate"] == "0.1"
    assert attached.model_data == estimator.model_data
    assert {"Key": "who", "Value": "me"} in attached.tags

    frame = analytics.TrainingJobAnalytics(name, ["test loss"]).dataframe()
    assert list(frame.columns) == ["timestamp", "metric_name", "value"]
    assert set(frame.metric_name) == {"test loss"}
    assert frame.value.between(0.33, 1).all() and len(frame)


def test_failure_is_raised_with_its_reason(session: object, tmp_path: Path) -> None:
    (tmp_path / "hpo.py").write_text("raise ValueError('no such breed')")
    estimator = on_one_instance(tmp_path)
    with pytest.raises(Exception, match="ValueError: no such breed"):
        estimator.fit(logs=False)


def test_fit_on_groups_of_instances(
    session: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hpo.py").write_text(WHERE)
    group = pytest.importorskip("sagemaker.instance_group").InstanceGroup
    first, second = group("one", "ml.c5.xlarge", 1), group("two", "ml.m5.large", 2)
    estimator = pytorch.PyTorch(
        entry_point="hpo.py",
        source_dir=str(tmp_path),
        role=sagemaker.get_execution_role(),
        framework_version="2.1",
        py_version="py310",
        instance_groups=[first, second],
    )
    estimator.fit(logs=True)
    printed = capsys.readouterr().out
    for line in ("algo-1 in one of ml.c5.xlarge", "algo-3 in two of ml.m5.large"):
        assert line in printed


def test_fit_twice_with_keep_alive_period(session: Any, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "hpo.py").write_text(CACHES)
    trainer = Trainer(platform)

    def fit(name: str, keep_s: int) -> tuple[str, str]:
        """Return the job's name and its log."""
        estimator = on_one_instance(
            tmp_path, hyperparameters={"name": name}, keep_alive_period_in_seconds=keep_s
        )
        estimator.fit(wait=False)  # it looks every 10 s
        job: str = estimator.latest_training_job.name
        assert trainer.ended(job)["TrainingJobStatus"] == "Completed"
        return job, trainer.log(job)

    first, log = fit("one", 1800)
    assert "found []" in log
    second, log = fit("two", 600)
    assert "found ['one']" in log
    assert pytorch.PyTorch.attach(second).keep_alive_period_in_seconds == 600
    status = session.describe_training_job(first)["WarmPoolStatus"]
    assert (status["Status"], status["ReusedByJob"]) == ("Reused", second)
    assert session.describe_training_job(second)["WarmPoolStatus"] == {"Status": "Available"}
    session.update_training_job(second, resource_config={"KeepAlivePeriodInSeconds": 3600})
    config = session.describe_training_job(second)["ResourceConfig"]
    assert config["KeepAlivePeriodInSeconds"] == 3600
    session.update_training_job(second, resource_config={"KeepAlivePeriodInSeconds": 0})
    wait_for(
        lambda: session.describe_training_job(second)["WarmPoolStatus"]["Status"] == "Terminated"
    )


def test_the_profiler_is_updated_while_the_job_trains(session: Any, tmp_path: Path) -> None:
    debugger = pytest.importorskip("sagemaker.debugger")
    (tmp_path / "hpo.py").write_text(TRAINS_ON)
    bucket = session.default_bucket()
    estimator = on_one_instance(tmp_path, disable_profiler=True)
    estimator.fit(wait=False)
    estimator.enable_default_profiling()
    described = estimator.latest_training_job.describe()
    assert described["ProfilingStatus"] == "Enabled"
    assert described["ProfilerConfig"]["S3OutputPath"] == estimator.output_path
    rules = debugger.rule_configs
    estimator.update_profiler(
        rules=[debugger.ProfilerRule.sagemaker(rules.CPUBottleneck())],
        system_monitor_interval_millis=1000,
        s3_output_path=f"s3://{bucket}/profiled",
    )
    described = estimator.latest_training_job.describe()
    assert described["ProfilerConfig"] == {
        "S3OutputPath": f"s3://{bucket}/profiled",
        "ProfilingIntervalInMilliseconds": 1000,
        "DisableProfiler": False,
    }
    assert "CPUBottleneck" in named(described)
    estimator.disable_profiling()
    described = estimator.latest_training_job.describe()
    assert described["ProfilingStatus"] == "Disabled"
    assert set(named(described).values()) == {"Stopped"}
    estimator.latest_training_job.stop()


def named(described: dict[str, Any]) -> dict[str, str]:
    """Return the profiler's rules with their statuses."""
    statuses = described["ProfilerRuleEvaluationStatuses"]
    return {s["RuleConfigurationName"]: s["RuleEvaluationStatus"] for s in statuses}
