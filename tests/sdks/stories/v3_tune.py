"""SDK 3.x: a tuning job, its best training job, its table, and the resource."""

import json

import projects
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.core.resources import HyperParameterTuningJob
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.tuner import HyperparameterTuner

NAME = "sdk3"  # the SDK's own names are alike within a minute
projects.write()
session = Session()
image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.4-cpu-py311"
trainer = ModelTrainer(
    sagemaker_session=session,
    training_image=image,
    source_code=SourceCode(source_dir="code", entry_script="hpo.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    base_job_name="tuned",
    hyperparameters={"momentum": 0.9},
)
inputs = session.upload_data("data", key_prefix="v3-tune")
tuner = HyperparameterTuner(
    trainer,
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
tuner.tune([InputData(channel_name="training", data_source=inputs)], wait=True)
name = tuner.latest_tuning_job.hyper_parameter_tuning_job_name
job = HyperParameterTuningJob.get(name)
frame = tuner.analytics().dataframe()
report = {
    "best": tuner.best_training_job(),
    "status": job.hyper_parameter_tuning_job_status,
    "completed": job.training_job_status_counters.completed,
    "tuned": job.best_training_job.tuned_hyper_parameters,
    "jobs": frame.to_dict(orient="records"),
    "trials": [each.training_job_name for each in job.get_all_training_jobs()],
}
with open("report.json", "w") as file:
    json.dump(report, file, default=str)
