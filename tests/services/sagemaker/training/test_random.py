"""What PyTorch draws differs in every job and on every host, also where they are forks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from training_client import Trainer, wait_for

from cloche.engine.local.probe import probe
from cloche.testing.platform import Platform

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(probe().isolation != "full", reason="needs sandboxes"),
]
SCRIPT = """
import json, sys
warm = "torch" in sys.modules
import torch
drawn = {"rand": torch.rand(1).item(), "seed": torch.initial_seed(),
         "layer": torch.nn.Linear(2, 1).weight.tolist(), "order": torch.randperm(40).tolist()}
print("DRAWN " + json.dumps({"warm": warm, **drawn}))
"""


def drawn(trainer: Trainer, hosts: int = 1) -> list[dict[str, Any]]:
    """Return what each host of a new job drew."""
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1}
    name = trainer.start(SCRIPT, ResourceConfig=cluster)
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = []
    for number in range(hosts):
        lines = trainer.log(name, f"algo-{number + 1}").splitlines()
        found += [json.loads(x.removeprefix("DRAWN ")) for x in lines if x.startswith("DRAWN ")]
    assert len(found) == hosts
    return found


def test_every_job_and_host_draws_anew(platform: Platform) -> None:
    trainer = Trainer(platform)
    all_of_them: list[dict[str, Any]] = []

    def forked() -> bool:
        all_of_them.extend(drawn(trainer))
        return bool(all_of_them[-1]["warm"])

    assert wait_for(forked)
    all_of_them += drawn(trainer) + drawn(trainer, hosts=2)
    assert all(each["warm"] for each in all_of_them[-3:])
    for name in ("rand", "seed", "layer", "order"):
        values = [json.dumps(each[name]) for each in all_of_them]
        assert len(set(values)) == len(values), name
