"""From a request to an answer, by a user's functions."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

from sagemaker_training import content_types, encoders, errors, functions

from . import _env, _worker

DOCUMENTATION = "https://github.com/aws/sagemaker-python-sdk"


def default_model_fn(model_dir: str) -> Any:
    """Raise: there is no way to load any model."""
    raise NotImplementedError(missing("model_fn"))


def default_input_fn(input_data: Any, content_type: str) -> Any:
    """Decode JSON, CSV or NPY to an array."""
    return encoders.decode(input_data, content_type)


def default_predict_fn(data: Any, model: Any) -> Any:
    """Raise: there is no way to ask any model."""
    raise NotImplementedError(missing("predict_fn"))


def default_output_fn(prediction: Any, accept: str) -> _worker.Response:
    """Encode a prediction as JSON, CSV or NPY."""
    return _worker.Response(response=encoders.encode(prediction, accept), mimetype=accept)


def missing(name: str) -> str:
    """Return what is said of a function that the user has to write."""
    text = f"Please provide a {name} implementation.\nSee documentation for {name} at "
    return f"\n{text}{DOCUMENTATION}\n"


class Transformer:
    """A model with the functions that answer for it."""

    def __init__(
        self,
        model_fn: Callable[..., Any] | None = None,
        input_fn: Callable[..., Any] | None = None,
        predict_fn: Callable[..., Any] | None = None,
        output_fn: Callable[..., Any] | None = None,
        transform_fn: Callable[..., Any] | None = None,
        error_class: type[Exception] = errors.ClientError,
    ) -> None:
        if transform_fn and (input_fn or predict_fn or output_fn):
            raise ValueError(
                "Cannot use transform_fn implementation with input_fn, predict_fn, and/or output_fn"
            )

        def guarded(own: Callable[..., Any] | None, default: Callable[..., Any]) -> Any:
            return default if own is None else functions.error_wrapper(own, error_class)

        self._model: Any = None
        self._model_fn = guarded(model_fn, default_model_fn)
        self._transform_fn = guarded(transform_fn, self._default_transform_fn)
        self._input_fn = guarded(input_fn, default_input_fn)
        self._predict_fn = guarded(predict_fn, default_predict_fn)
        self._output_fn = guarded(output_fn, default_output_fn)

    def initialize(self) -> None:
        """Load the model."""
        self._model = self._model_fn(os.environ.get("SM_MODEL_DIR", _env.model_dir))

    def transform(self) -> Any:
        """Answer flask's request."""
        request = _worker.Request()
        content = (request.content, request.content_type, request.accept)
        result = self._transform_fn(self._model, *content)
        if isinstance(result, tuple):
            return _worker.Response(response=result[0], mimetype=result[1])
        return result

    def _default_transform_fn(
        self, model: Any, content: Any, content_type: str, accept: str
    ) -> Any:
        try:
            data = self._input_fn(content, content_type)
        except errors.UnsupportedFormatError as error:
            return refusal(error, 415)
        prediction = self._predict_fn(data, model)
        try:
            return self._output_fn(prediction, accept)
        except errors.UnsupportedFormatError as error:
            return refusal(error, 406)


def refusal(error: Exception, status: int) -> _worker.Response:
    """Return the answer to a type that is not taken, or not given."""
    said = {
        "error": type(error).__name__,
        "error-message": str(error),
        "stack-trace": traceback.format_exc(),
    }
    return _worker.Response(json.dumps(said), status=status, mimetype=content_types.JSON)
