"""Tuning jobs, end to end: boto3 -> gateway -> loops -> training jobs in sandboxes."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from training_client import wait_for
from tuning_client import OBJECTIVE, Tuner

from cloche.testing.platform import Platform, start

BOWL = """
import os
x = float(os.environ["SM_HP_X"])
print("Loss:", (x - 2) ** 2)
"""
# A good job reports two epochs and ends; a bad one goes on until somebody stops it.
STEPS = """
import os, time
kind = os.environ["SM_HP_KIND"]
print("Loss: 1.0" if kind.startswith("good") else "Loss: 9.0")
if kind == "fails":
    raise SystemExit(3)
if kind == "bad":
    time.sleep(100)
print("Loss: 0.5")
"""


@pytest.fixture(scope="module")
def tuner(platform: Platform) -> Tuner:
    return Tuner(platform)


def limits(jobs: int, parallel: int) -> dict[str, int]:
    return {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel}


X = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "-5", "MaxValue": "5"}]}
KINDS = {"CategoricalParameterRanges": [{"Name": "kind", "Values": ["good", "bad", "good2"]}]}


def test_bayesian_search_of_a_bowl(tuner: Tuner) -> None:
    config = {
        "Strategy": "Bayesian",
        "ResourceLimits": limits(7, 3),
        "ParameterRanges": X,
        "TrainingJobEarlyStoppingType": "Auto",
    }
    tuner.tune("bowl", BOWL, config)
    done = tuner.over("bowl")
    assert done["HyperParameterTuningJobStatus"] == "Completed", done
    jobs = tuner.jobs("bowl", SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    assert len(jobs) == 7
    metric = "FinalHyperParameterTuningJobObjectiveMetric"
    for job in jobs:
        x = float(job["TunedHyperParameters"]["x"])
        assert job[metric] == {"Value": pytest.approx((x - 2) ** 2)} | {
            "Type": "Minimize",
            "MetricName": "loss",
        }
        assert job["TrainingEndTime"] >= job["TrainingStartTime"]
    assert done["BestTrainingJob"] == jobs[0]
    assert done["TrainingJobStatusCounters"] == {
        "Completed": 7,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 0,
    }
    assert done["ObjectiveStatusCounters"] == {"Succeeded": 7, "Pending": 0, "Failed": 0}
    definition = done["TrainingJobDefinition"]
    assert definition["StaticHyperParameters"]["_tuning_objective_metric"] == "loss"
    assert definition["ResourceConfig"]["InstanceType"] == "ml.m5.large"
    ranges = done["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["IntegerParameterRanges"] == ranges["CategoricalParameterRanges"] == []
    best = tuner.describe(jobs[0]["TrainingJobName"])
    assert best["TuningJobArn"] == done["HyperParameterTuningJobArn"]
    assert best["HyperParameters"]["x"] == jobs[0]["TunedHyperParameters"]["x"]
    (listed,) = tuner.sagemaker.list_hyper_parameter_tuning_jobs(NameContains="bowl")[
        "HyperParameterTuningJobSummaries"
    ]
    assert (listed["Strategy"], listed["HyperParameterTuningJobStatus"]) == (
        "Bayesian",
        "Completed",
    )


def test_a_bad_trial_is_stopped_early_and_still_counts(tuner: Tuner) -> None:
    config = {
        "Strategy": "Grid",
        "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        "ParameterRanges": KINDS,
        "TrainingJobEarlyStoppingType": "Auto",
    }
    tuner.tune("early", STEPS, config)
    done = tuner.over("early")
    jobs = tuner.jobs("early", SortBy="Name")
    found = [(j["TunedHyperParameters"]["kind"], j["TrainingJobStatus"]) for j in jobs]
    assert found == [("good", "Completed"), ("bad", "Stopped"), ("good2", "Completed")]
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    assert done["ObjectiveStatusCounters"]["Succeeded"] == 3
    assert done["BestTrainingJob"]["TunedHyperParameters"] == {"kind": "good"}


def test_failures_are_counted_and_the_search_goes_on(tuner: Tuner) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "kind", "Values": ["fails", "good"]}]}
    config = {
        "Strategy": "Grid",
        "ResourceLimits": {"MaxParallelTrainingJobs": 2},
        "ParameterRanges": ranges,
    }
    tuner.tune("partly", STEPS, config)
    done = tuner.over("partly")
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    assert done["TrainingJobStatusCounters"]["NonRetryableError"] == 1
    assert done["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}
    assert done["BestTrainingJob"]["TunedHyperParameters"] == {"kind": "good"}


def test_a_search_in_which_all_fail_fails(tuner: Tuner) -> None:
    config = {"Strategy": "Random", "ResourceLimits": limits(2, 2), "ParameterRanges": X}
    tuner.tune("hopeless", "raise SystemExit(1)", config)
    done = tuner.over("hopeless")
    assert done["HyperParameterTuningJobStatus"] == "Failed"
    assert done["FailureReason"] == (
        "All training jobs failed. "
        "Please take a look at the training job failures to get more details."
    )


def test_a_search_whose_metric_is_never_printed_says_so(tuner: Tuner) -> None:
    config = {"Strategy": "Random", "ResourceLimits": limits(1, 1), "ParameterRanges": X}
    tuner.tune("mute", "print('nothing to see')", config)
    done = tuner.over("mute")
    assert done["HyperParameterTuningJobStatus"] == "Failed"
    assert done["FailureReason"].startswith(
        "No objective metrics found after running 1 training jobs. Please ensure that the custom "
        "algorithm is emitting the objective metric as defined by the regular expression provided. "
        "No line of their logs gave a value of the metric "
    )
    definition = done["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"][0]
    assert f"(regular expression: {definition['Regex']})" in done["FailureReason"]


def test_stop(tuner: Tuner) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "kind", "Values": ["bad", "good"]}]}
    config = {
        "Strategy": "Grid",
        "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        "ParameterRanges": ranges,
    }
    tuner.tune("halted", STEPS, config)
    wait_for(lambda: [j for j in tuner.jobs("halted") if j["TrainingJobStatus"] == "InProgress"])
    tuner.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="halted")
    done = tuner.over("halted")
    assert done["HyperParameterTuningJobStatus"] == "Stopped"
    assert [j["TrainingJobStatus"] for j in tuner.jobs("halted")] == ["Stopped"]
    with pytest.raises(ClientError) as refusal:
        tuner.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="halted")
    assert refusal.value.response["Error"]["Message"] == (
        "The request was rejected because the hyperparameter tuning job is in status Stopped."
    )


def test_warm_start_learns_from_its_parent(tuner: Tuner) -> None:
    config = {"Strategy": "Bayesian", "ResourceLimits": limits(1, 1), "ParameterRanges": X}
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "bowl"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    tuner.tune("child", BOWL, config, WarmStartConfig=warm)
    done = tuner.over("child")
    overall = done["OverallBestTrainingJob"]
    metric = "FinalHyperParameterTuningJobObjectiveMetric"
    values = [j[metric]["Value"] for name in ("bowl", "child") for j in tuner.jobs(name)]
    assert overall[metric]["Value"] == min(values)
    assert overall["TuningJobName"] in ("bowl", "child")


@pytest.mark.parametrize(
    ("config", "more", "code", "message"),
    [
        (
            {"Strategy": "Bayesian", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
            {},
            "ValidationException",
            "MaxNumberOfTrainingJobs is required with the Bayesian tuning strategy.",
        ),
        (
            {"Strategy": "Grid", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
            {},
            "ValidationException",
            "Only categorical parameters are supported when using the Grid tuning strategy; "
            "x is of type Continuous.",
        ),
        (
            {
                "Strategy": "Hyperband",
                "ResourceLimits": limits(2, 1),
                "TrainingJobEarlyStoppingType": "Auto",
            },
            {},
            "ValidationException",
            "TrainingJobEarlyStoppingType must be OFF to use Hyperband.",
        ),
        (
            {"Strategy": "Random", "ResourceLimits": limits(2, 1)},
            {
                "WarmStartConfig": {
                    "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "nobody"}],
                    "WarmStartType": "TransferLearning",
                }
            },
            "ResourceNotFound",
            "Amazon SageMaker can't find a tuning job called nobody. Type another name.",
        ),
        (
            {
                "Strategy": "Random",
                "ResourceLimits": limits(2, 1),
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "other"},
            },
            {},
            "ValidationException",
            "A metric is required for this hyperparameter tuning job objective. "
            "Provide a metric in the metric definitions.",
        ),
        (
            {
                "Strategy": "Random",
                "ResourceLimits": limits(2, 1),
                "ParameterRanges": {"AutoParameters": [{"Name": "y", "ValueHint": "adam"}]},
            },
            {"Autotune": {"Mode": "Enabled"}},
            "ValidationException",
            "The hyperparameter y is not eligible for Autotune: its ValueHint 'adam' is "
            "not a positive number. Give it a range or a static value.",
        ),
        (
            {
                "Strategy": "Random",
                "ResourceLimits": limits(2, 1),
                "ParameterRanges": {"AutoParameters": [{"Name": "y", "ValueHint": "1"}]},
            },
            {},
            "ValidationException",
            "ParameterRanges.AutoParameters is only for Autotune.",
        ),
    ],
)
def test_refusals(
    tuner: Tuner, config: dict[str, Any], more: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(ClientError) as refusal:
        tuner.tune("refused", BOWL, {"ParameterRanges": X} | config, **more)
    assert refusal.value.response["Error"]["Code"] == code
    assert refusal.value.response["Error"]["Message"] == message


def test_autotune_fills_in_what_was_left_open(tuner: Tuner) -> None:
    config = {
        "Strategy": "Bayesian",
        "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        "ParameterRanges": {"AutoParameters": [{"Name": "x", "ValueHint": "2.5"}]},
        "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 1000.0},
    }
    tuner.tune("auto", BOWL, config, Autotune={"Mode": "Enabled"})
    done = tuner.over("auto")
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    assert done["Autotune"] == {"Mode": "Enabled"}
    filled = done["HyperParameterTuningJobConfig"]
    assert filled["ParameterRanges"]["ContinuousParameterRanges"] == [
        {"Name": "x", "MinValue": "0.25", "MaxValue": "25.0", "ScalingType": "Logarithmic"}
    ]
    assert filled["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 30
    assert filled["TrainingJobEarlyStoppingType"] == "Auto"
    # The first result is below the target: the search is over.
    assert len(tuner.jobs("auto")) == 1


def test_hyperband_stops_the_worse_and_ends_all_at_the_last_epoch(tuner: Tuner) -> None:
    script = """
import os, time
x = float(os.environ["SM_HP_X"])
for epoch in range(40):
    print("Loss:", (x - 2) ** 2 + 1 / (epoch + 1))
    time.sleep(0.3)
"""
    config = {
        "Strategy": "Hyperband",
        "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 3}},
        "ResourceLimits": limits(3, 1),
        "ParameterRanges": X,
    }
    tuner.tune("band", script, config)
    done = tuner.over("band")
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    # No script reaches its fortieth epoch: a look comes at least every second.
    assert [job["TrainingJobStatus"] for job in tuner.jobs("band")] == ["Stopped"] * 3
    assert done["ObjectiveStatusCounters"]["Succeeded"] == 3


def test_names_are_unique_and_unknown_ones_are_told(tuner: Tuner) -> None:
    config = {"Strategy": "Random", "ResourceLimits": limits(1, 1), "ParameterRanges": X}
    with pytest.raises(ClientError) as refusal:
        tuner.tune("bowl", BOWL, config)
    assert refusal.value.response["Error"] == {
        "Code": "ResourceInUse",
        "Message": "A hyperparameter tuning job with the name, bowl, already exists. "
        "Choose a different name.",
    }
    with pytest.raises(ClientError) as unknown:
        tuner.tuning("nobody")
    assert unknown.value.response["Error"]["Code"] == "ResourceNotFound"


def test_a_restarted_server_goes_on_with_the_same_search(tmp_path: Any) -> None:
    config = {"Strategy": "Bayesian", "ResourceLimits": limits(6, 2), "ParameterRanges": X}
    with start(tmp_path / "one") as platform:
        tuner = Tuner(platform)
        tuner.tune("again", BOWL, config)
        wait_for(lambda: tuner.tuning("again")["TrainingJobStatusCounters"]["Completed"] >= 1)
    with start(tmp_path / "one") as platform:
        tuner = Tuner(platform)
        done = tuner.over("again")
        jobs = tuner.jobs("again", SortBy="Name")
        assert done["HyperParameterTuningJobStatus"] == "Completed"
        assert len({job["TrainingJobName"] for job in jobs}) == len(jobs) == 6
        every = tuner.sagemaker.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
        assert len(every) == 6


def test_a_tuning_job_has_no_warm_pool(tuner: Tuner) -> None:
    """AWS too leaves the member out of its answers."""
    instance = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    keeps = instance | {"KeepAlivePeriodInSeconds": 600}
    left = tuner.train("", ResourceConfig=keeps)["TrainingJobName"]
    definition = tuner.definition(BOWL, ResourceConfig=keeps)
    del definition["HyperParameterTuningResourceConfig"]
    tuner.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="no-pool",
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": X,
        },
        TrainingJobDefinition=definition,
    )
    described = tuner.over("no-pool")
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    assert described["TrainingJobDefinition"]["ResourceConfig"] == instance
    (job,) = tuner.jobs("no-pool")
    assert "WarmPoolStatus" not in tuner.describe(job["TrainingJobName"])
    assert tuner.describe(left)["WarmPoolStatus"] == {"Status": "Available"}
