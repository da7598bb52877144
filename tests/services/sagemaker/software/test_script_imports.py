"""The modules that public scripts import most: they are there, or the log says what adds them."""

from __future__ import annotations

import json
import random

import pytest
from script_imports import most
from serving_client import deploy, settled
from training_client import Trainer, source, wait_for

from cloche.environments.image_contents import HELD
from cloche.runtime.missing_modules import advice
from cloche.testing.extent import Extent
from cloche.testing.platform import Platform

pytestmark = pytest.mark.torch
MOST = most(60)
# In environments of their own, over PyTorch's, which are built for scripts that import them.
OVER = {
    "mpi4py",
    "sagemaker_containers",
    "sagemaker_inference",
    "sagemaker_training",
    "sagemaker_xgboost_container",
    "smdebug",
}
IMPORTS = """
import importlib, json, os
failed = {}
for name in json.loads(os.environ["SM_HP_MODULES"]):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = repr(error)
print("FAILED", json.dumps(failed))
"""
INFERENCE = "def model_fn(model_dir):\n    import {module}\n"


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


@pytest.fixture(scope="module")
def missing(trainer: Trainer) -> list[str]:
    """Those that a job with PyTorch's image can't import."""
    modules = [module for module in MOST if module not in OVER]
    log = trainer.completed(IMPORTS, HyperParameters={"modules": json.dumps(modules)})
    (line,) = (line for line in log.splitlines() if line.startswith("FAILED "))
    found: list[str] = list(json.loads(line.removeprefix("FAILED ")))
    return found


def test_what_aws_has_is_there(missing: list[str]) -> None:
    assert not set(missing) & set(HELD["pytorch"])
    assert {"numpy", "torch", "pandas", "sklearn", "joblib", "cv2", "tqdm"} <= set(MOST) - set(
        missing
    )


def test_else_the_log_ends_with_the_line_that_adds_it(
    trainer: Trainer, missing: list[str], extent: Extent
) -> None:
    chosen = random.Random(extent.seed).sample(missing, extent.of(2, len(missing)))
    names = {m: trainer.start(f"print('first')\nimport {m}\n") for m in chosen}
    for module, name in names.items():
        assert trainer.ended(name)["TrainingJobStatus"] == "Failed"
        lines = trainer.log(name).splitlines()
        assert "first" in lines and lines[-1] == advice(module)


def test_a_job_of_several_hosts_by_torchrun(trainer: Trainer) -> None:
    """Each host's log ends with it, though torchrun has the last word of the traceback."""
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    torchrun = {"sagemaker_torch_distributed_enabled": "true"}
    name = trainer.start("import timm\n", ResourceConfig=cluster, HyperParameters=torchrun)
    assert trainer.ended(name)["TrainingJobStatus"] == "Failed"
    ends = {trainer.log(name, host).splitlines()[-1] for host in ("algo-1", "algo-2")}
    assert advice("timm") in ends


def test_an_endpoint_whose_model_needs_one(trainer: Trainer, platform: Platform) -> None:
    code = {"code/inference.py": INFERENCE.format(module="sentence_transformers")}
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-cpu-py312"
    uri = trainer.put("needs/model.tar.gz", source(code))
    deploy(trainer.sagemaker, trainer.role, "needs", image, uri)
    failed = settled(trainer.sagemaker, "needs")
    assert failed["EndpointStatus"] == "Failed"
    assert "No module named 'sentence_transformers'" in failed["FailureReason"]
    logs = platform.client("logs", as_="admin")

    def told() -> bool:
        pages = logs.filter_log_events(logGroupName="/aws/sagemaker/Endpoints/needs")
        return advice("sentence_transformers") in [e["message"] for e in pages["events"]]

    assert wait_for(told)
