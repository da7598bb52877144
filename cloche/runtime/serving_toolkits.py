"""What AWS's own modules mean to a model server: their responses, and errors with a status.

A script imports them or not: nothing here does.
"""

import json
import sys
import traceback
from dataclasses import dataclass
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Response:
    """What flask's Response says."""

    status: int
    body: bytes
    content_type: str | None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status that an error of user code asks for, with its phrase."""

    status: int
    phrase: str
    message: str


def known(module: str, name: str) -> tuple[type[Any], ...]:
    """Return a class of a module, if that was imported; as isinstance and except take it."""
    found = getattr(sys.modules.get(module), name, None)
    return (found,) if isinstance(found, type) else ()


def response_of(result: Any) -> Response | None:
    """Return what a handler's result says if it is flask's (sagemaker_containers' worker's)."""
    if not isinstance(result, known("werkzeug.wrappers", "Response")):
        return None
    headers = tuple((n, v) for n, v in result.headers.items() if n.lower() != "content-type")
    return Response(result.status_code, result.get_data(), result.content_type, headers)


def unsupported() -> tuple[type[Any], ...]:
    """Return the error by which sagemaker_containers' handlers refuse a media type."""
    return known("sagemaker_training.errors", "UnsupportedFormatError")


def refused_type(error: Exception, status: int) -> Response:
    """Return sagemaker_containers' answer to that error."""
    said = {
        "error": type(error).__name__,
        "error-message": str(error),
        "stack-trace": traceback.format_exc(),
    }
    return Response(status, json.dumps(said).encode(), JSON)


def refusal_of(error: Exception) -> Refusal | None:
    """Return what an error of the inference toolkits asks for; None: it is any error."""
    if isinstance(error, known("sagemaker_inference.errors", "BaseInferenceToolkitError")):
        return Refusal(status_of(error.status_code), str(error.phrase), str(error.message))
    if isinstance(error, known("mms.service", "PredictionException")):
        return Refusal(status_of(error.error_code), str(error.message), str(error.message))
    return None


def status_of(value: Any) -> int:
    """Return a status that HTTP has; 500 for what is none."""
    try:
        status = int(value)
    except (TypeError, ValueError):
        return 500
    return status if 100 <= status <= 599 else 500
