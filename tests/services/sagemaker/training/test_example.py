"""The example's hpo.py as a job: four instances and one agree, and share the features they kept."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from training_client import BUCKET, Trainer, channel, source

from cloche.testing.platform import Platform
from cloche.tour.digits import write_digits

EXAMPLE = Path(__file__).parents[4] / "examples" / "dog_breeds"
ARGUMENTS = {"epochs": "2", "batch_size": "16", "image_size": "32", "learning_rate": "0.01"}


def history(trainer: Trainer, name: str) -> list[float]:
    """The numbers of all epochs and of the test."""
    data = io.BytesIO(trainer.get(f"out/{name}/output/output.tar.gz"))
    with tarfile.open(fileobj=data) as tar:
        file = tar.extractfile("history.json")
        assert file is not None
        found: dict[str, Any] = json.load(file)
    names = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return [epoch[n] for epoch in found["epochs"] for n in names] + list(found["test"].values())


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_four_instances_and_one_agree(platform: Platform, tmp_path: Path) -> None:
    trainer = Trainer(platform)
    write_digits(tmp_path, per_class=6)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        trainer.put(f"digits/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    code = {path.name: path.read_text() for path in EXAMPLE.glob("*.py")}
    uri = trainer.put("code/sourcedir.tar.gz", source(code))
    jobs = []
    for hosts in (4, 1):
        job = trainer.train(
            HyperParameters=ARGUMENTS
            | {
                "backbone": '"efficientnet-lite0"',
                "sagemaker_program": '"hpo.py"',
                "sagemaker_submit_directory": json.dumps(uri),
            },
            InputDataConfig=[channel("training", f"s3://{BUCKET}/digits/")],
            ResourceConfig={
                "InstanceType": "ml.m5.2xlarge",
                "InstanceCount": hosts,
                "VolumeSizeInGB": 1,
            },
            CheckpointConfig={"S3Uri": f"s3://{BUCKET}/kept"},
        )
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        jobs.append(job["TrainingJobName"])
    assert "Rank 3 of 4 (gloo); rank 0 is algo-1" in trainer.log(jobs[0], "algo-4")
    assert trainer.log(jobs[0], "algo-1").count("Testing Loss: ") == 1
    assert trainer.log(jobs[0], "algo-2").count("Testing Loss: ") == 0
    assert trainer.log(jobs[1]).count(": found in /opt/ml/checkpoints/features/") == 3
    assert history(trainer, jobs[0]) == pytest.approx(history(trainer, jobs[1]), abs=1e-5)
    names = {key.rsplit("/", 1)[1] for key in trainer.keys("kept/features/")}
    assert names >= {"train.pt", "valid.pt", "test.pt"}
