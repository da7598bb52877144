"""SDK 2.x: train with the log shown, attach to the job, read its metrics."""

import json

import projects
import sagemaker
from sagemaker.analytics import TrainingJobAnalytics
from sagemaker.pytorch import PyTorch

projects.write()
session = sagemaker.Session()
inputs = session.upload_data("data", key_prefix="fit")
estimator = PyTorch(
    entry_point="hpo.py",
    source_dir="code",
    role=sagemaker.get_execution_role(),
    framework_version="1.8",
    py_version="py36",
    instance_count=1,
    instance_type="ml.m5.large",
    hyperparameters={"learning_rate": 0.05, "batch_size": 64},
    metric_definitions=projects.METRICS,
)
estimator.fit({"training": inputs}, wait=True)
attached = PyTorch.attach(estimator.latest_training_job.name)
frame = TrainingJobAnalytics(estimator.latest_training_job.name).dataframe()
report = {
    "version": sagemaker.__version__,
    "status": estimator.latest_training_job.describe()["TrainingJobStatus"],
    "model": estimator.model_data,
    "attached": attached.model_data,
    "hyperparameters": attached.hyperparameters(),
    "metrics": sorted(set(frame["metric_name"])),
}
with open("report.json", "w") as file:
    json.dump(report, file)
