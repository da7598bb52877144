"""SDK 3.x: two hosts whose processes torchrun starts, through the SDK's own driver."""

import json
from pathlib import Path

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import MetricDefinition
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode
from sagemaker.train.distributed import Torchrun

SUM = """
import argparse, os
import torch
import torch.distributed as dist
parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=float)
factor = parser.parse_args().factor
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
total = torch.tensor([factor * (rank + 1)])
dist.all_reduce(total)
print(f"{os.environ['SM_CURRENT_HOST']}: rank {rank} of {size}, sum {total.item()}", flush=True)
if rank == 0:
    torch.save(total, os.path.join(os.environ["SM_MODEL_DIR"], "total.pt"))
dist.destroy_process_group()
"""

Path("code").mkdir()
Path("code/sum.py").write_text(SUM)
trainer = ModelTrainer(
    sagemaker_session=Session(),
    training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.4-cpu-py311",
    source_code=SourceCode(source_dir="code", entry_script="sum.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=2),
    distributed=Torchrun(),
    base_job_name="torchrun",
    hyperparameters={"factor": 1.5},
).with_metric_definitions([MetricDefinition(name="sum", regex=r"rank 1 of 2, sum ([0-9.]+)")])
trainer.train()
job = TrainingJob.get(trainer._latest_training_job.training_job_name)
report = {
    "status": job.training_job_status,
    "model": job.model_artifacts.s3_model_artifacts,
    "metrics": {each.metric_name: each.value for each in job.final_metric_data_list},
}
with open("report.json", "w") as file:
    json.dump(report, file)
