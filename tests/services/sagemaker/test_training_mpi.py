"""Jobs whose distribution is mpi: Open MPI starts the script on all hosts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from training_client import Trainer

from cloche.testing.platform import Platform

# What scripts look at; half of those that ask for MPI never call it.
SCRIPT = """
import os, socket, sys
import numpy
from mpi4py import MPI

world = MPI.COMM_WORLD
total = numpy.zeros(1)
world.Allreduce(numpy.array([float(world.rank + 1)]), total)
names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
print(*(os.environ["OMPI_COMM_WORLD_" + name] for name in names), socket.gethostname(), total[0])
print("args", *sys.argv[1:], os.environ["SM_HOSTS"], os.environ.get("MORE"))
print("threads", os.environ["OMP_NUM_THREADS"], os.environ["SM_CHANNEL_TRAINING"], os.getcwd())
"""


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def mpi(
    hosts: int = 1, processes: int | None = None, options: str = "", **more: Any
) -> dict[str, Any]:
    """Return what the SDK sends for `distribution={"mpi": …}`."""
    sent = {
        "sagemaker_mpi_enabled": "true",
        "sagemaker_mpi_custom_mpi_options": json.dumps(options),
    }
    if processes is not None:
        sent["sagemaker_mpi_num_of_processes_per_host"] = str(processes)
    of = {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1}
    return {"HyperParameters": sent | more, "ResourceConfig": of}


def test_one_host_two_processes(trainer: Trainer) -> None:
    log = trainer.completed(SCRIPT, **mpi(1, 2, "-x MORE=more", epochs="3"))
    print(log)
    assert 0
