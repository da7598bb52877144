"""SDK 2.x: a tuning job, found again by its name, its best estimator and its table."""

import json

import projects
import sagemaker
from sagemaker.pytorch import PyTorch
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner

# The SDK's own names are alike within a minute.
NAME = "sdk" + sagemaker.__version__.replace(".", "-")
projects.write()
session = sagemaker.Session()
inputs = session.upload_data("data", key_prefix="tune")
estimator = PyTorch(
    entry_point="hpo.py",
    source_dir="code",
    role=sagemaker.get_execution_role(),
    framework_version="1.8",
    py_version="py36",
    instance_count=1,
    instance_type="ml.m5.large",
)
tuner = HyperparameterTuner(
    estimator,
    "average test loss",
    {
        "learning_rate": ContinuousParameter(0.001, 0.1),
        "batch_size": CategoricalParameter([32, 64, 128]),
    },
    projects.METRICS,
    objective_type="Minimize",
    max_jobs=3,
    max_parallel_jobs=2,
    early_stopping_type="Auto",
    base_tuning_job_name=NAME,
)
tuner.fit({"training": inputs}, wait=True)
name = tuner.latest_tuning_job.name
attached = HyperparameterTuner.attach(name)
best = attached.best_estimator()
frame = attached.analytics().dataframe()
report = {
    "version": sagemaker.__version__,
    "best": attached.best_training_job(),
    "estimator": type(best).__name__,
    "hyperparameters": best.hyperparameters(),
    "model": best.model_data,
    "status": attached.describe()["HyperParameterTuningJobStatus"],
    "counters": attached.describe()["TrainingJobStatusCounters"],
    "ranges": sorted(attached.hyperparameter_ranges()),
    "jobs": frame.to_dict(orient="records"),
}
with open("report.json", "w") as file:
    json.dump(report, file, default=str)
