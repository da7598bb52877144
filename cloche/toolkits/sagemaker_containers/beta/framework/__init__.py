"""The toolkit's interface."""

from typing import Any

from sagemaker_training import content_types as content_types
from sagemaker_training import encoders as encoders
from sagemaker_training import entry_point as entry_point
from sagemaker_training import errors as errors
from sagemaker_training import files as files
from sagemaker_training import functions as functions
from sagemaker_training import logging_config as logging
from sagemaker_training import mapping as mapping
from sagemaker_training import modules as modules
from sagemaker_training import mpi as mpi
from sagemaker_training import params as params
from sagemaker_training import process as process
from sagemaker_training import recordio as recordio
from sagemaker_training import runner as runner
from sagemaker_training import timeout as timeout
from sagemaker_training import trainer as trainer

from ... import _env as env
from ... import _transformer as transformer
from ... import _worker as worker

__all__ = [
    "content_types",
    "encoders",
    "entry_point",
    "env",
    "errors",
    "files",
    "functions",
    "logging",
    "mapping",
    "modules",
    "mpi",
    "params",
    "process",
    "recordio",
    "runner",
    "timeout",
    "trainer",
    "training_env",
    "transformer",
    "worker",
]


def training_env(
    resource_config: Any = None, input_data_config: Any = None, hyperparameters: Any = None
) -> Any:
    """Return what is known of the training job that this process is part of."""
    return env.TrainingEnv(
        resource_config=resource_config or env.read_resource_config(),
        input_data_config=input_data_config or env.read_input_data_config(),
        hyperparameters=hyperparameters or env.read_hyperparameters(),
    )
