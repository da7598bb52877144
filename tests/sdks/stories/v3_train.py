"""SDK 3.x: train (a bash job with literal /opt/ml paths) with the log shown, then the resource."""

import json

import projects
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import MetricDefinition
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode

projects.write()
session = Session()
image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.4-cpu-py311"
trainer = ModelTrainer(
    sagemaker_session=session,
    training_image=image,
    source_code=SourceCode(source_dir="code", entry_script="hpo.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    base_job_name="story",
    hyperparameters={"learning_rate": 0.05, "batch_size": 64},
).with_metric_definitions(
    [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in projects.METRICS]
)
trainer.train(input_data_config=[InputData(channel_name="training", data_source="data")])
job = TrainingJob.get(trainer._latest_training_job.training_job_name)
listed = [each.training_job_name for each in TrainingJob.get_all(name_contains="story")]
copy = TrainingJob.create(
    training_job_name="by-the-resource",
    role_arn=job.role_arn,
    algorithm_specification=job.algorithm_specification,
    input_data_config=job.input_data_config,
    output_data_config=job.output_data_config,
    resource_config=job.resource_config,
    stopping_condition=job.stopping_condition,
    hyper_parameters=job.hyper_parameters,
)
copy.wait(poll=1)
report = {
    "status": job.training_job_status,
    "model": job.model_artifacts.s3_model_artifacts,
    "metrics": {each.metric_name: each.value for each in job.final_metric_data_list},
    "arguments": job.algorithm_specification.container_arguments,
    "listed": listed == [job.training_job_name],
    "copy": copy.training_job_status,
}
copy.delete()
copy.wait_for_delete(poll=1)
with open("report.json", "w") as file:
    json.dump(report, file)
