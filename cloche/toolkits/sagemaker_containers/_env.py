"""What is known of where a script runs: a training job's environment, and a model server's."""

import os

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


class ServingEnv(mapping.MappingMixin):
    """What the environment's variables say to a model server."""

    def __init__(self) -> None:
        said = os.environ
        program = said.get("SAGEMAKER_PROGRAM") or "inference.py"
        self._module_name = program.removesuffix(".py")
        self._module_dir = said.get("SAGEMAKER_SUBMIT_DIRECTORY", code_dir)
        self._user_entry_point = program
        self._current_host = said.get("SM_CURRENT_HOST", "algo-1")
        self._log_level = int(said.get("SAGEMAKER_CONTAINER_LOG_LEVEL", 20))
        self._model_dir = said.get("SM_MODEL_DIR", model_dir)
        self._num_cpus, self._num_gpus = num_cpus(), num_gpus()
        self._model_server_timeout = int(said.get("SAGEMAKER_MODEL_SERVER_TIMEOUT", 60))
        self._model_server_workers = int(said.get("SAGEMAKER_MODEL_SERVER_WORKERS", num_cpus()))
        self._default_accept = said.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        self._framework_module = said.get("SAGEMAKER_SERVING_MODULE")
        self._http_port = said.get("SAGEMAKER_BIND_TO_PORT", "8080")
        self._safe_port_range = said.get("SAGEMAKER_SAFE_PORT_RANGE")
        self._use_nginx = said.get("SAGEMAKER_USE_NGINX", "true").lower() in ("1", "true", "yes")

    @property
    def module_name(self) -> str:
        """The user's module."""
        return self._module_name

    @property
    def module_dir(self) -> str:
        """Where the user's module comes from."""
        return self._module_dir

    @property
    def user_entry_point(self) -> str:
        """The user's program."""
        return self._user_entry_point

    @property
    def current_host(self) -> str:
        """The name of this host."""
        return self._current_host

    @property
    def log_level(self) -> int:
        """The level of the toolkit's own messages."""
        return self._log_level

    @property
    def model_dir(self) -> str:
        """The folder of the model."""
        return self._model_dir

    @property
    def num_cpus(self) -> int:
        """How many CPUs there are."""
        return int(self._num_cpus)

    @property
    def num_gpus(self) -> int:
        """How many GPUs there are."""
        return int(self._num_gpus)

    @property
    def model_server_timeout(self) -> int:
        """Seconds for one prediction."""
        return self._model_server_timeout

    @property
    def model_server_workers(self) -> int:
        """How many workers are asked for."""
        return self._model_server_workers

    @property
    def default_accept(self) -> str:
        """The type of an answer to who names none."""
        return self._default_accept

    @property
    def framework_module(self) -> str | None:
        """The framework's module."""
        return self._framework_module

    @property
    def http_port(self) -> str:
        """The port that AWS's server listens to."""
        return self._http_port

    @property
    def safe_port_range(self) -> str | None:
        """Ports that the platform leaves free."""
        return self._safe_port_range

    @property
    def use_nginx(self) -> bool:
        """Whether AWS's server has a proxy before it."""
        return self._use_nginx
