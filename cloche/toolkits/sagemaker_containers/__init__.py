"""SageMaker Containers, the toolkit before sagemaker_training and sagemaker_inference.

Its last release (2.8.6, 2020) can't be imported since Python 3.10. Its modules live on in
sagemaker_training; only what served is here.
"""

from typing import Any

from sagemaker_training import content_types as _content_types
from sagemaker_training import encoders as _encoders
from sagemaker_training import entry_point as entry_point
from sagemaker_training import errors as _errors
from sagemaker_training import files as _files
from sagemaker_training import functions as _functions
from sagemaker_training import logging_config as _logging
from sagemaker_training import mapping as _mapping
from sagemaker_training import modules as _modules
from sagemaker_training import mpi as _mpi
from sagemaker_training import params as _params
from sagemaker_training import process as _process
from sagemaker_training import recordio as _recordio
from sagemaker_training import runner as _runner
from sagemaker_training import timeout as _timeout
from sagemaker_training import trainer as _trainer

from . import _env

__all__ = [
    "_content_types",
    "_encoders",
    "_env",
    "_errors",
    "_files",
    "_functions",
    "_logging",
    "_mapping",
    "_modules",
    "_mpi",
    "_params",
    "_process",
    "_recordio",
    "_runner",
    "_timeout",
    "_trainer",
    "entry_point",
    "training_env",
]


def training_env() -> Any:
    """Return what is known of the training job that this process is part of."""
    return _env.TrainingEnv(
        resource_config=_env.read_resource_config(),
        input_data_config=_env.read_input_data_config(),
        hyperparameters=_env.read_hyperparameters(),
    )
