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


def ranks(log: str) -> list[str]:
    """Return the lines that the ranks wrote."""
    return sorted(line for line in log.splitlines() if line.startswith("[1,mpirank:"))


def test_one_host_two_processes(trainer: Trainer) -> None:
    log = trainer.completed(SCRIPT, **mpi(1, 2, "-x MORE=more -bind-to core", epochs="3"))
    assert ranks(log) == sorted(
        f"[1,mpirank:{rank},algo-1]<stdout>:{text}"
        for rank in (0, 1)
        for text in (
            f"{rank} 2 {rank} 2 algo-1 3.0",
            'args --epochs 3 ["algo-1"] more',
            "threads 1 /opt/ml/input/data/training /opt/ml/code",
        )
    )
    assert "\nmpirun --host algo-1:2 -np 2 --allow-run-as-root --display-map --tag-output " in log
    assert " -x MORE=more --bind-to core -x SM_" in log
    assert "-m mpi4py hpo.py --epochs 3" in log
    assert "[openmpi] " in log, "the environment was built for this job"


def test_two_hosts(trainer: Trainer) -> None:
    job = trainer.start(SCRIPT, **mpi(2, 2))
    assert trainer.ended(job)["TrainingJobStatus"] == "Completed", trainer.log(job)
    log = trainer.log(job)
    said = [line for line in ranks(log) if "algo-" in line.split(":", 2)[2].split("[")[0]]
    assert said == [
        f"[1,mpirank:{rank},{host}]<stdout>:{rank} 4 {local} 2 {host} 10.0"
        for rank, local, host in (
            (0, 0, "algo-1"),
            (1, 1, "algo-1"),
            (2, 0, "algo-2"),
            (3, 1, "algo-2"),
        )
    ]
    assert "Worker algo-2 available for communication" in log
    other = trainer.log(job, "algo-2")
    assert "Starting MPI run as worker node." in other
    assert "MPI process finished." in other


def test_a_rank_that_fails_ends_the_job(trainer: Trainer) -> None:
    script = """
import os, time
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    raise ValueError("rank 1 has no data")
time.sleep(600)
"""
    job = trainer.train(script, **mpi(2))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n"
        'ErrorMessage "ValueError: rank 1 has no data (rank 1, algo-2)"\n'
        'Command "mpirun --host algo-1,algo-2 -np 2 '
    )
    log = trainer.log(job["TrainingJobName"])
    assert "[1,mpirank:1,algo-2]<stderr>:ValueError: rank 1 has no data" in log


def test_a_rank_that_is_killed_is_named(trainer: Trainer) -> None:
    script = """
import os, time
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    os.kill(os.getpid(), 11)
time.sleep(600)
"""
    reason = trainer.train(script, **mpi(1, 2))["FailureReason"]
    assert "exited on\nsignal 11 (Segmentation fault)" in reason
    assert reason.endswith("exit code: 139")
