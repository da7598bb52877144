"""Default decoders and encoders of a model server's bodies: json, csv, npy, npz.

They answer as AWS's inference toolkit does (`sagemaker_inference.decoder` and `.encoder`), whose
behaviour user code relies on. numpy and torch are imported only when a body needs them.
"""

import importlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

JSON, CSV = "application/json", "text/csv"
NPY, NPZ = "application/x-npy", "application/x-npz"
TEXT_TYPES = (JSON, CSV)  # their bodies reach user code as str, all others as bytes


class UnsupportedFormat(Exception):
    """A content type that has no default decoder or encoder; the text is the toolkit's."""

    def __init__(self, content_type: str) -> None:
        super().__init__(
            f"Content type {content_type} is not supported by this framework.\n\n"
            "Please implement input_fn to to deserialize the request data or an output_fn to\n"
            "serialize the response. For more information, see the SageMaker Python SDK README."
        )


def library(name: str) -> ModuleType | None:
    """Return the library, imported now if need be; None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def numpy() -> Any:
    """Return numpy; ImportError says what needs it."""
    module = library("numpy")
    if module is None:
        raise ImportError("the default input and output formats need numpy: it is not installed")
    return module


def media_type(header: str) -> str:
    """Return a Content-Type without its parameters, in lower case."""
    return header.split(";", 1)[0].strip().lower()


def from_json(body: str) -> Any:
    """Return a JSON document as an array."""
    return numpy().array(json.loads(body))


def from_csv(body: str) -> Any:
    """Return comma-separated numbers as an array."""
    return numpy().genfromtxt(io.StringIO(body), dtype=float, delimiter=",")


def from_npy(body: bytes) -> Any:
    """Return an array in NumPy's own format (pickled objects too: the code is the user's own)."""
    return numpy().load(io.BytesIO(body), allow_pickle=True)


def to_json(value: Any) -> bytes:
    """Return JSON; arrays and tensors through their `tolist`."""
    return json.dumps(value, default=as_list).encode()


def as_list(value: Any) -> Any:
    """Return what JSON can say of an array; TypeError when it is none."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def to_csv(value: Any) -> bytes:
    """Return rows of comma-separated values."""
    stream = io.StringIO()
    numpy().savetxt(stream, value, delimiter=",", fmt="%s")
    return stream.getvalue().encode()


def to_npy(value: Any) -> bytes:
    """Return an array in NumPy's own format."""
    stream = io.BytesIO()
    numpy().save(stream, value)
    return stream.getvalue()


def to_npz(value: Any) -> bytes:
    """Return an array as a NumPy archive with one member, `arr_0`."""
    stream = io.BytesIO()
    numpy().savez(stream, value)
    return stream.getvalue()


DECODERS: dict[str, Callable[[Any], Any]] = {
    JSON: from_json,
    CSV: from_csv,
    NPY: from_npy,
    NPZ: from_npy,
}
ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: to_json,
    CSV: to_csv,
    NPY: to_npy,
    NPZ: to_npz,
}


def decode(body: str | bytes, content_type: str) -> Any:
    """Return a request body as an array; UnsupportedFormat for a type that has no decoder."""
    decoder = DECODERS.get(media_type(content_type))
    if decoder is None:
        raise UnsupportedFormat(content_type)
    return decoder(body)


def encode(value: Any, accept: str) -> tuple[bytes, str]:
    """Return a prediction in the first of the accepted types that has an encoder, and that type."""
    torch = sys.modules.get("torch")  # a tensor exists only where torch was imported
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy().tolist()
    for wanted in accept.split(","):
        content_type = media_type(wanted)
        if content_type in ENCODERS:
            return ENCODERS[content_type](value), content_type
    raise UnsupportedFormat(accept)
