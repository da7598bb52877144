"""The tuning job: started through the SDK, watched through boto3, its trials in a table."""

import json
import time
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sagemaker.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.pytorch.estimator import PyTorch
from sagemaker.tuner import HyperparameterTuner

from cloche.tour.errors import TourError
from cloche.tour.facts import TourTrial, Tuning
from cloche.tour.jobs import METRICS

# One of METRICS. hpo.py prints it in every epoch, so that early stopping can act; and the pictures
# to test with are not what a model is chosen by.
OBJECTIVE = "Validation Loss"
PARALLEL = 3
LEARNING_RATES = (0.0003, 0.03)
BATCH_SIZES = (16, 32, 64, 128)
LOOK_S = 1.0
RUNNING = ("InProgress", "Stopping")


def start(
    estimator: PyTorch, inputs: dict[str, str], trials: int, name: str
) -> HyperparameterTuner:
    """Start a search of the best learning rate and batch size; doesn't wait for it."""
    categorical: Any = CategoricalParameter  # the SDK has no type for it
    tuner = HyperparameterTuner(
        estimator,
        objective_metric_name=OBJECTIVE,
        objective_type="Minimize",
        metric_definitions=METRICS,
        hyperparameter_ranges={
            "learning_rate": ContinuousParameter(*LEARNING_RATES, scaling_type="Logarithmic"),
            "batch_size": categorical(list(BATCH_SIZES)),
        },
        strategy="Bayesian",
        early_stopping_type="Auto",
        max_jobs=trials,
        max_parallel_jobs=PARALLEL,
        random_seed=0,
    )
    tuner.fit(inputs, job_name=name, wait=False)
    return tuner


def watch(client: Any, name: str, epochs: int, console: Console) -> Tuning:
    """Show the trials until the search is over, and return it.

    client: boto3's for SageMaker. Raises TourError when the search failed or was stopped.
    """
    ended: dict[str, TourTrial] = {}
    with Live(console=console, auto_refresh=False) as live:
        while True:
            job = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            trials = read(client, name, ended)
            live.update(table(trials, epochs), refresh=True)
            if job["HyperParameterTuningJobStatus"] not in RUNNING:
                break
            time.sleep(LOOK_S)
    if not console.is_terminal:
        console.line()  # rich leaves it out there
    if job["HyperParameterTuningJobStatus"] != "Completed":
        reason = job.get("FailureReason", "no reason is given")
        raise TourError(f"{name} is {job['HyperParameterTuningJobStatus']}: {reason}")
    best = job["BestTrainingJob"]["TrainingJobName"]
    return Tuning(
        job=name,
        trials=tuple(trials),
        best=next(trial for trial in trials if trial.job == best),
        epochs=epochs,
        parallel=PARALLEL,
        seconds=(job["HyperParameterTuningEndTime"] - job["CreationTime"]).total_seconds(),
    )


def read(client: Any, name: str, ended: dict[str, TourTrial]) -> list[TourTrial]:
    """Return all trials so far, by number; those that have ended are asked for only once."""
    pages = client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    summaries = [summary for page in pages for summary in page["TrainingJobSummaries"]]
    trials = []
    for number, summary in enumerate(summaries, 1):
        job = summary["TrainingJobName"]
        trial = ended.get(job) or trial_of(number, summary, described(client, job))
        if trial.status not in RUNNING:
            ended[job] = trial
        trials.append(trial)
    return trials


def described(client: Any, job: str) -> dict[str, Any]:
    """Return a training job's description; {} when it is listed and not there to be seen yet."""
    try:
        found: dict[str, Any] = client.describe_training_job(TrainingJobName=job)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return {}
    return found


def trial_of(number: int, summary: dict[str, Any], job: dict[str, Any]) -> TourTrial:
    """Return a trial, from what the tuning job and its training job tell of it."""
    tuned = summary["TunedHyperParameters"]
    metrics = {m["MetricName"]: m["Value"] for m in job.get("FinalMetricDataList", ())}
    return TourTrial(
        number=number,
        job=summary["TrainingJobName"],
        learning_rate=float(plain_value(tuned["learning_rate"])),
        batch_size=int(plain_value(tuned["batch_size"])),
        status=job.get("TrainingJobStatus", summary["TrainingJobStatus"]),
        step=job.get("SecondaryStatus", "Starting"),
        epoch=int(metrics.get("epoch", 0)),
        objective=metrics.get(OBJECTIVE),
        test_loss=metrics.get("Testing Loss"),
    )


def plain_value(text: str) -> str:
    """Return a hyperparameter without the quotation marks that the SDK puts about it."""
    return str(json.loads(text))


def table(trials: Sequence[TourTrial], epochs: int) -> Table:
    """Return the trials as a table for the terminal."""
    shown = Table(box=None)
    for title in ("Trial", "Learning rate", "Batch", "Epoch", "Valid. loss", "Test loss"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("Status", no_wrap=True)
    usable = [t for t in trials if t.objective is not None and t.status in ("Completed", "Stopped")]
    best = min(usable, key=lambda t: t.objective or 0.0, default=None)
    for trial in trials:
        shown.add_row(
            str(trial.number),
            f"{trial.learning_rate:.5f}",
            str(trial.batch_size),
            f"{trial.epoch}/{epochs}",
            number_or_dash(trial.objective),
            number_or_dash(trial.test_loss),
            state(trial) + (" [bold green]best[/]" if trial is best else ""),
        )
    return shown


def number_or_dash(value: float | None) -> str:
    """Return a loss, or what stands for one that is not there yet."""
    return "–" if value is None else f"{value:.4f}"


def state(trial: TourTrial) -> str:
    """Return how a trial stands, in words, with rich's markup."""
    if trial.early:
        return "[yellow]stopped early[/]"
    if trial.status == "Failed":
        return "[red]failed[/]"
    if trial.status == "InProgress":
        return f"[cyan]{'pending' if trial.step == 'Pending' else trial.step.lower()}[/]"
    return trial.status.lower()
