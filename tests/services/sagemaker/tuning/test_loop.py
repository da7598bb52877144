"""The loop of tuning jobs, its server dying before and after every write."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche.core.clock import ManualClock
from cloche.core.typed import encode
from cloche.records.store import Resource, Store
from cloche.services.sagemaker.names import arn, desired
from cloche.services.sagemaker.training.record import TRAINING_JOB, LastValue, training_job
from cloche.services.sagemaker.training.status import TrainingJobStatus
from cloche.services.sagemaker.tuning.loop import TuningJobs
from cloche.services.sagemaker.tuning.record import TUNING_JOB, SearchProgress, tuning_job

ACCOUNT, REGION, NAME = "123456789012", "us-east-1", "search"
JOBS, PARALLEL = 5, 2
REQUEST = {
    "HyperParameterTuningJobConfig": {
        "Strategy": "Random",
        "RandomSeed": 11,
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": JOBS, "MaxParallelTrainingJobs": PARALLEL},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]
        },
    },
    "TrainingJobDefinition": {
        "StaticHyperParameters": {"_tuning_objective_metric": "loss"},
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/r",
        "OutputDataConfig": {"S3OutputPath": "s3://b/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
}


class Death(Exception):
    """The server is gone."""


class Mortal:
    """A store that dies at one of the loop's writes, before or after it is made."""

    def __init__(self, store: Store, last: int | None, *, before: bool) -> None:
        self.store, self.last, self.before, self.writes = store, last, before, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def insert(self, *arguments: Any, **more: Any) -> Any:
        return await self.write(self.store.insert, *arguments, **more)

    async def update(self, *arguments: Any, **more: Any) -> Any:
        return await self.write(self.store.update, *arguments, **more)

    async def write(self, write: Any, *arguments: Any, **more: Any) -> Any:
        self.writes += 1
        if self.writes == self.last and self.before:
            raise Death
        result = await write(*arguments, **more)
        if self.writes == self.last:
            raise Death
        return result


async def begin(path: Path) -> Store:
    store = Store.open(path, ManualClock())
    now = store.clock.now()
    await store.insert(
        Resource(
            account=ACCOUNT,
            region=REGION,
            kind=TUNING_JOB,
            name=NAME,
            arn=arn(ACCOUNT, REGION, TUNING_JOB, NAME),
            status="InProgress",
            created=now,
            modified=now,
            desired=desired(REQUEST, ()),
            document=encode(SearchProgress()),
        )
    )
    return store


def current(store: Store) -> Resource:
    found = store.get(TUNING_JOB, ACCOUNT, REGION, NAME)
    assert found is not None
    return found


def running(store: Store) -> list[Resource]:
    return store.each(TRAINING_JOB, (TrainingJobStatus.IN_PROGRESS,))


async def complete_one(store: Store) -> None:
    """End the oldest training job, its loss the hyperparameter itself."""
    jobs = running(store)
    if not jobs:
        return
    resource = min(jobs, key=lambda job: job.name)
    job = training_job(resource)
    loss = float(job.request["HyperParameters"]["x"])
    metrics = {"loss": LastValue(value=loss, at_ms=0)}
    progress = job.progress.replace(metrics=metrics, curve=(loss,))
    await store.update(resource, status="Completed", document=encode(progress))


async def live(store: Store, last: int | None = None, *, before: bool = True) -> bool:
    """Run the loop until the search ends (True) or the server dies (False)."""
    mortal = Mortal(store, last, before=before)
    loop = TuningJobs(SimpleNamespace(store=mortal))  # type: ignore[arg-type]
    for _ in range(100):
        if not loop.load():
            return True
        try:
            await loop.step(current(store))
        except Death:
            return False
        assert len(running(store)) <= PARALLEL
        await complete_one(store)
    raise AssertionError("the search does not end")


def outcome(store: Store) -> tuple[str, list[tuple[str, str]], list[str]]:
    """Return the status, the trials with their hyperparameters, and the training jobs there are."""
    job = tuning_job(current(store))
    trials = [(trial.name, trial.parameters["x"]) for trial in job.search.trials]
    return job.status.value, trials, sorted(r.name for r in store.each(TRAINING_JOB))


async def test_a_search_without_trouble(tmp_path: Path) -> None:
    store = await begin(tmp_path / "a.db")
    assert await live(store)
    status, trials, jobs = outcome(store)
    assert status == "Completed"
    assert jobs == sorted(name for name, _ in trials)
    assert len(jobs) == JOBS
    store.close()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_dying_at_any_write_loses_and_repeats_no_trial(tmp_path: Path, before: bool) -> None:
    undisturbed = await begin(tmp_path / "undisturbed.db")
    assert await live(undisturbed)
    expected = outcome(undisturbed)
    undisturbed.close()
    deaths = 0
    for write in range(1, 100):
        store = await begin(tmp_path / f"{write}.db")
        died = not await live(store, write, before=before)
        deaths += died
        assert await live(store)
        assert outcome(store) == expected
        store.close()
        if not died:
            break
    # Each trial is written down and created; then its end and the search's are written down.
    assert deaths >= 2 * JOBS
