"""What a training script finds: the toolkit's Environment, `SM_*` variables and arguments.

The rules are those of the public sagemaker-training toolkit; `training.py` runs the script.
Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "sagemaker_"
WITHHELD = "_tuning_objective_metric"
# Hyperparameters of the toolkit itself; other sagemaker_… ones are framework parameters.
OWN = (
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_region",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "default_user_module_name",
    WITHHELD,
    "sagemaker_s3_output",
)
# By which a job asks for a launcher; where it names no groups, the hosts of its own are meant.
LAUNCHERS = (
    "sagemaker_mpi_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_torch_distributed_enabled",
)
FRAMEWORK = "sagemaker_pytorch_container.training:main"
BASE = Path("/opt/ml")


class Layout:
    """The folders of `/opt/ml` (SAGEMAKER_BASE_DIR names another base)."""

    def __init__(self, base: Path) -> None:
        self.input, self.output = base / "input", base / "output"
        self.config, self.data = base / "input/config", base / "input/data"
        self.model, self.code = base / "model", base / "code"
        # Outside a sandbox the interpreter is not ours: packages go to a folder of the job.
        self.packages = None if base == BASE else base.parent / "packages"

    def read(self, name: str) -> dict[str, Any]:
        """Return one of the configuration files."""
        content: dict[str, Any] = json.loads((self.config / name).read_text())
        return content


def decoded(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return hyperparameters as the JSON they hold, else as the raw string."""
    found: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        try:
            found[name] = json.loads(value)
        except (ValueError, TypeError):
            found[name] = value
    return found


def withheld(name: str) -> bool:
    """Return whether a hyperparameter is the platform's, and not the script's."""
    return name.startswith(PREFIX) or name in OWN


def arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return `--key value` pairs, sorted; `-k` for one letter; a dict as `a=1,b=2`."""
    found: list[str] = []
    for name in sorted(hyperparameters):
        value = hyperparameters[name]
        if isinstance(value, dict):
            text = ",".join(f"{k}={v}" for k, v in sorted(value.items()))
        else:
            text = "" if value is None else str(value)
        found += [f"--{name}" if len(name) > 1 else f"-{name}", text]
    return found


def as_text(value: Any) -> str:
    """Return a variable's value: strings as they are, nothing for None, else JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def launched_hosts(
    extra: Mapping[str, Any], resources: Mapping[str, Any], group: str
) -> tuple[list[str], list[str]]:
    """Return the groups that a launcher starts together, and all their hosts."""
    own = [group] if any(extra.get(name) for name in LAUNCHERS) else []
    names = extra.get("sagemaker_distribution_instance_groups", own)
    groups = resources.get("instance_groups", [])
    if not groups:
        return names, resources["hosts"]
    return names, [h for g in groups if g["instance_group_name"] in names for h in g["hosts"]]


def training_env(layout: Layout, given: Mapping[str, str]) -> dict[str, Any]:
    """Return what the toolkit's Environment holds, from the configuration files.

    `given` is the process's environment: it says the CPUs, and where a channel really lies.
    """
    resources, channels = layout.read("resourceconfig.json"), layout.read("inputdataconfig.json")
    everything = decoded(layout.read("hyperparameters.json"))
    own = {k: v for k, v in everything.items() if withheld(k)}
    hosts, host = resources["hosts"], resources["current_host"]
    program = given.get("SAGEMAKER_PROGRAM") or own.get("sagemaker_program")
    groups = resources.get("instance_groups", [])
    group = resources.get("current_group_name", "homogeneousCluster")
    extra = {k: v for k, v in own.items() if k not in OWN}
    launched, together = launched_hosts(extra, resources, group)
    master = next(iter(together), hosts[0])
    return {
        "additional_framework_parameters": extra,
        "channel_input_dirs": {
            name: given.get(f"SM_CHANNEL_{name.upper()}", str(layout.data / name))
            for name in channels
        },
        "current_host": host,
        "current_instance_group": group,
        "current_instance_group_hosts": next(
            (g["hosts"] for g in groups if g["instance_group_name"] == group), []
        ),
        "current_instance_type": resources.get("current_instance_type", "local"),
        "distribution_hosts": together,
        "distribution_instance_groups": launched,
        "framework_module": given.get("SAGEMAKER_TRAINING_MODULE", FRAMEWORK),
        "hosts": hosts,
        "hyperparameters": {k: v for k, v in everything.items() if not withheld(k)},
        "input_config_dir": str(layout.config),
        "input_data_config": channels,
        "input_dir": str(layout.input),
        "instance_groups": [g["instance_group_name"] for g in groups],
        "instance_groups_dict": {g["instance_group_name"]: g for g in groups},
        "is_hetero": len(groups) > 1,
        "is_master": host == master,
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "job_name": own.get("sagemaker_job_name", given.get("TRAINING_JOB_NAME", "")),
        "log_level": own.get("sagemaker_container_log_level", logging.INFO),
        "master_hostname": master,
        "model_dir": str(layout.model),
        "module_dir": str(own.get("sagemaker_submit_directory", layout.code)),
        "module_name": re.sub(r"\.py$", "", program) if program else None,
        "network_interface_name": resources.get("network_interface_name", "eth0"),
        "num_cpus": int(given.get("SM_NUM_CPUS") or os.cpu_count() or 1),
        "num_gpus": int(given.get("SM_NUM_GPUS") or 0),
        "num_neurons": 0,
        "output_data_dir": str(layout.output / "data"),
        "output_dir": str(layout.output),
        "output_intermediate_dir": str(layout.output / "intermediate"),
        "resource_config": resources,
        "topology": resources.get("topology", []),
        "user_entry_point": program,
    }


# SM_* variables that bear another name than their property.
RENAMED = {
    "additional_framework_parameters": "framework_params",
    "hyperparameters": "hps",
}
# Properties that are part of SM_TRAINING_ENV alone.
UNEXPORTED = (
    "channel_input_dirs",
    "distribution_hosts",
    "is_master",
    "is_modelparallel_enabled",
    "is_smddpmprun_installed",
    "is_smddprun_installed",
    "job_name",
    "master_hostname",
)


def variables(env: Mapping[str, Any], region: str) -> dict[str, str]:
    """Return every variable that the script finds beside those of the container."""
    found = {
        f"SM_{RENAMED.get(name, name).upper()}": as_text(value)
        for name, value in env.items()
        if name not in UNEXPORTED and (value or name != "topology")
    }
    found["SM_CHANNELS"] = as_text(sorted(env["channel_input_dirs"]))
    found["SM_TRAINING_ENV"] = as_text(env)
    found["SM_USER_ARGS"] = as_text(arguments(env["hyperparameters"]))
    for name, folder in env["channel_input_dirs"].items():
        found[f"SM_CHANNEL_{name.upper()}"] = folder
    for name, value in env["hyperparameters"].items():
        found[f"SM_HP_{name.upper()}"] = as_text(value)
    return found | {
        "CURRENT_HOST": env["current_host"],
        "SAGEMAKER_JOB_NAME": env["job_name"],
        "SAGEMAKER_REGION": region,
        "NCCL_SOCKET_IFNAME": env["network_interface_name"],
        "NCCL_IB_DISABLE": "1",
    }
