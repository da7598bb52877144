"""Errors by who has to do something about them."""

from sagemaker_algorithm_toolkit.exceptions import (
    AlgorithmError,
    BaseToolkitError,
    PlatformError,
    UserError,
)

__all__ = ["AlgorithmError", "BaseToolkitError", "PlatformError", "UserError"]
