"""What three generations of the SageMaker SDK do here, unpatched, as users run them."""

import json
from typing import Any

import pytest
from sdk_stories import Stories

METRIC = "average test loss"
IN_2 = pytest.mark.parametrize("sdk", ["2.70.0", "2"])


def check_table(jobs: list[dict[str, Any]], best: str) -> None:
    """Check the table of a tuning job of three: the best is the one with the lowest loss."""
    assert len(jobs) == 3
    assert {job["TrainingJobStatus"] for job in jobs} <= {"Completed", "Stopped"}
    assert all(0.001 <= job["learning_rate"] <= 0.1 for job in jobs)
    assert all(job["TrainingElapsedTimeSeconds"] > 0 for job in jobs)
    completed = [job for job in jobs if job["TrainingJobStatus"] == "Completed"]
    assert min(completed, key=lambda job: job["FinalObjectiveValue"])["TrainingJobName"] == best


def test_sdk_2_70_fits_with_the_log_and_attaches(stories: Stories) -> None:
    report = stories.report("2.70.0", "v2_fit")
    assert (report["version"], report["status"]) == ("2.70.0", "Completed")
    assert report["model"] == report["attached"]
    assert report["model"].endswith("/output/model.tar.gz")
    assert report["hyperparameters"]["learning_rate"] == "0.05"
    assert report["metrics"] == [METRIC]


@IN_2
def test_sdk_2_tunes(stories: Stories, sdk: str) -> None:
    report = stories.report(sdk, "v2_tune")
    assert report["version"].startswith(f"{sdk}.") or report["version"] == sdk
    assert report["status"] == "Completed"
    assert report["counters"]["Completed"] + report["counters"]["Stopped"] == 3
    check_table(report["jobs"], report["best"])
    assert report["estimator"] == "PyTorch"
    assert report["best"] in report["model"]
    # Categorical values come back as the SDK sent them, JSON in JSON.
    assert json.loads(report["hyperparameters"]["batch_size"]).strip('"') in ("32", "64", "128")
    assert "learning_rate" in report["hyperparameters"]


@IN_2
def test_sdk_2_deploys_asks_updates_and_deletes(stories: Stories, sdk: str) -> None:
    report = stories.report(sdk, "v2_serve")
    assert report["json"] == {"data": {"x": [1, 2]}, "batch_size": 1}
    assert report["jpeg"] == {"data": 5, "batch_size": 1}
    assert report["updated"] == {"data": 0, "batch_size": 2}
    assert report["left"] == []


def test_sdk_3_trains_with_literal_paths(stories: Stories) -> None:
    report = stories.report("3.27.0", "v3_train")
    assert report["status"] == report["copy"] == "Completed"
    assert report["metrics"] == {METRIC: pytest.approx(0.064)}
    assert "/opt/ml/input/data/sm_drivers/sm_train.sh" in report["arguments"][1]
    assert report["listed"]


@pytest.mark.torch
def test_sdk_3_has_torchrun_start_two_hosts(stories: Stories) -> None:
    pytest.importorskip("torch")  # what the job runs in
    report = stories.report("3.27.0", "v3_torchrun")
    assert report["status"] == "Completed"
    assert report["metrics"] == {"sum": pytest.approx(1.5 * (1 + 2))}
    assert report["model"].endswith("/output/model.tar.gz")


def test_sdk_3_tunes(stories: Stories) -> None:
    report = stories.report("3.27.0", "v3_tune")
    assert report["status"] == "Completed"
    check_table(report["jobs"], report["best"])
    assert report["tuned"]["batch_size"] in ("32", "64", "128")
    assert sorted(report["trials"]) == sorted(job["TrainingJobName"] for job in report["jobs"])


def test_sdk_3_builds_deploys_and_asks(stories: Stories) -> None:
    report = stories.report("3.27.0", "v3_serve")
    assert report["answer"] == {"data": [1, 2], "batch_size": 3}
    assert (report["model"], report["status"]) == ("v3-model", "InService")
    assert report["updated"] == "v3-other"
    assert (report["listed"], report["left"]) == (["v3-endpoint"], [])
