"""The functions that answer where a user writes none."""

from typing import Any

import numpy as np
from sagemaker_containers.beta.framework import content_types, encoders, transformer, worker


def default_model_fn(model_dir: str) -> Any:
    """Raise: there is no way to load any model."""
    return transformer.default_model_fn(model_dir)


def default_input_fn(input_data: Any, content_type: str) -> Any:
    """Decode JSON, CSV or NPY to an array, of float32 if it came as text."""
    array = encoders.decode(input_data, content_type)
    return array.astype(np.float32) if content_type in content_types.UTF8_TYPES else array


def default_predict_fn(input_data: Any, model: Any) -> Any:
    """Call the estimator's `predict`."""
    return model.predict(input_data)


def default_output_fn(prediction: Any, accept: str) -> Any:
    """Encode a prediction as JSON, CSV or NPY."""
    return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
