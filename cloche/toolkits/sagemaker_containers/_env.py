"""What is known of where a script runs: a training job's environment, and a model server's."""

import os
from typing import Any

from sagemaker_training import mapping
from sagemaker_training.environment import (
    SAGEMAKER_BASE_PATH,
    Environment,
    channel_path,
    code_dir,
    model_dir,
    num_cpus,
    num_gpus,
    output_data_dir,
    output_dir,
    read_hyperparameters,
    read_input_data_config,
    read_resource_config,
    write_env_vars,
)

__all__ = [
    "SAGEMAKER_BASE_PATH",
    "ServingEnv",
    "TrainingEnv",
    "channel_path",
    "code_dir",
    "model_dir",
    "num_cpus",
    "num_gpus",
    "output_data_dir",
    "output_dir",
    "read_hyperparameters",
    "read_input_data_config",
    "read_resource_config",
    "write_env_vars",
]

TrainingEnv = Environment
JSON = "application/json"
TRUE = ("1", "true", "yes")


class ServingEnv(mapping.MappingMixin):
    """What the environment's variables say to a model server: attributes, and a mapping of them."""

    def __init__(self) -> None:
        variables = os.environ
        cpus = num_cpus()
        self.user_entry_point = variables.get("SAGEMAKER_PROGRAM") or "inference.py"
        self.module_name = self.user_entry_point.removesuffix(".py")
        self.module_dir = variables.get("SAGEMAKER_SUBMIT_DIRECTORY", code_dir)
        self.current_host = variables.get("SM_CURRENT_HOST", "algo-1")
        self.log_level = int(variables.get("SAGEMAKER_CONTAINER_LOG_LEVEL", 20))
        self.model_dir = variables.get("SM_MODEL_DIR", model_dir)
        self.num_cpus, self.num_gpus = cpus, num_gpus()
        self.model_server_timeout = int(variables.get("SAGEMAKER_MODEL_SERVER_TIMEOUT", 60))
        self.model_server_workers = int(variables.get("SAGEMAKER_MODEL_SERVER_WORKERS", cpus))
        self.default_accept = variables.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        self.framework_module = variables.get("SAGEMAKER_SERVING_MODULE")
        self.http_port = variables.get("SAGEMAKER_BIND_TO_PORT", "8080")
        self.safe_port_range = variables.get("SAGEMAKER_SAFE_PORT_RANGE")
        self.use_nginx = variables.get("SAGEMAKER_USE_NGINX", "true").lower() in TRUE

    def properties(self) -> list[str]:
        """Return the mapping's keys."""
        return sorted(vars(self))

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]
