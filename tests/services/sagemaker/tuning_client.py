"""Tuning jobs through boto3 against a whole platform."""

from __future__ import annotations

import json
from typing import Any

from training_client import BUCKET, IMAGE, Trainer, channel, source, wait_for

METRICS = [{"Name": "loss", "Regex": "Loss: ([-0-9.e]+)"}]
OBJECTIVE = {"Type": "Minimize", "MetricName": "loss"}


class Tuner(Trainer):
    """A user of the platform who tunes."""

    def definition(self, script: str, **changes: Any) -> dict[str, Any]:
        self.number += 1
        uri = self.put(f"tuning-{self.number}/sourcedir.tar.gz", source({"hpo.py": script}))
        return {
            "StaticHyperParameters": {
                "sagemaker_program": json.dumps("hpo.py"),
                "sagemaker_submit_directory": json.dumps(uri),
            },
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": METRICS,
            },
            "RoleArn": self.role,
            "InputDataConfig": [channel("training", f"s3://{BUCKET}/in")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "HyperParameterTuningResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        } | changes

    def tune(self, name: str, script: str, config: dict[str, Any], **more: Any) -> None:
        self.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={
                "HyperParameterTuningJobObjective": OBJECTIVE,
                "RandomSeed": 7,
            }
            | config,
            TrainingJobDefinition=self.definition(script),
            **more,
        )

    def tuning(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        return answer

    def over(self, name: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.tuning(name)
            going = found["HyperParameterTuningJobStatus"] in ("InProgress", "Stopping")
            return None if going else found

        found: dict[str, Any] = wait_for(look)
        return found

    def jobs(self, name: str, **more: Any) -> list[dict[str, Any]]:
        answer = self.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name, MaxResults=100, **more
        )
        summaries: list[dict[str, Any]] = answer["TrainingJobSummaries"]
        return summaries
