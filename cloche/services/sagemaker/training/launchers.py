"""By which launcher a job's script is started, and what that needs beside the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cloche.core.config import Home
from cloche.core.errors import AwsError, unsupported
from cloche.engine import Engine, Mount
from cloche.environments.ready import ready
from cloche.environments.table import OPEN_MPI, Framework
from cloche.services.sagemaker.training.record import TrainingJob

MPI = "sagemaker_mpi_enabled"
PREFIX = "CLOCHE_MPI"  # by which the runner finds Open MPI
REFUSED = {  # hyperparameters by which the SDK asks for a launcher that is not there
    "sagemaker_parameter_server_enabled": "parameter_server",
    "sagemaker_distributed_dataparallel_enabled": "smdistributed.dataparallel",
    "mp_parameters": "smdistributed.modelparallel",
    "sagemaker_pytorch_ddp_enabled": "pytorchddp",
    "sagemaker_pytorch_xla_multi_worker_enabled": "pytorchxla",
    "sagemaker_multi_worker_mirrored_strategy_enabled": "multi_worker_mirrored_strategy",
}


def enabled(hyperparameters: Mapping[str, str], name: str) -> bool:
    """Return whether a hyperparameter switches something on."""
    try:
        return bool(json.loads(hyperparameters.get(name, "false")))
    except ValueError:
        return True


def check(hyperparameters: Mapping[str, str]) -> None:
    """Refuse launchers that are not there."""
    for name, distribution in REFUSED.items():
        if enabled(hyperparameters, name):
            raise unsupported(
                f"the distribution {distribution} ({name})",
                "Leave out distribution=…, ask for several instances, and call "
                "torch.distributed.init_process_group('gloo') in the script: every host has "
                "SM_HOSTS, SM_CURRENT_HOST, MASTER_ADDR and MASTER_PORT. Or have torchrun start it "
                "(torch_distributed): the hyperparameter sagemaker_torch_distributed_enabled=true; "
                'or Open MPI: distribution={"mpi": {"enabled": True}}.',
            )
    for name in ("sagemaker_mpi_num_of_processes_per_host", "sagemaker_mpi_num_processes"):
        given = hyperparameters.get(name, "1").strip('"')
        if enabled(hyperparameters, MPI) and not (given.isdecimal() and int(given) > 0):
            raise AwsError(
                "ValidationException", f"{name} must be a whole number above 0, not {given[:100]}."
            )


def tools(job: TrainingJob) -> tuple[Framework, ...]:
    """Return what the job's launcher needs beside the environment of its image."""
    given = job.request.get("HyperParameters", {})
    own = job.request["AlgorithmSpecification"].get("ContainerEntrypoint")
    return (OPEN_MPI,) if enabled(given, MPI) and not own else ()


def open_mpi(job: TrainingJob, home: Home) -> Path | None:
    """Return where Open MPI is, for a job that needs it (when it is there)."""
    found = ready(OPEN_MPI, home) if OPEN_MPI in tools(job) else None
    return None if found is None else found.prefixes[0]


def mounts(job: TrainingJob, home: Home, engine: Engine) -> list[Mount]:
    """Return what the launcher needs as the hosts see it."""
    prefix = open_mpi(job, home)
    return [] if prefix is None else [Mount(engine.stage(prefix), str(prefix))]


def variables(job: TrainingJob, home: Home) -> dict[str, str]:
    """Return what tells the runner where that is."""
    prefix = open_mpi(job, home)
    return {} if prefix is None else {PREFIX: str(prefix)}
