"""Default decoders and encoders of a model server's bodies: json, csv, npy, npz.

They answer as AWS's inference toolkit does (`sagemaker_inference.decoder` and `.encoder`), whose
behaviour user code relies on; `decode_cells` and `encode_cells` as the older toolkit of its
scikit-learn image (`sagemaker_containers.encoders`), which reads CSV otherwise. numpy and torch
are imported only when a body needs them.
"""

import csv
import importlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Mapping
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
    """Return comma-separated values as an array; each column of the type that its values have."""
    return numpy().genfromtxt(io.StringIO(body), dtype=None, delimiter=",")


def from_csv_cells(body: str) -> Any:
    """Return comma-separated values, quoted or not, as an array of text."""
    rows = csv.reader(io.StringIO(body), delimiter=",", quotechar='"', strict=True)
    return numpy().array(list(rows)).squeeze()


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


def to_csv_cells(value: Any) -> bytes:
    """Return rows of comma-separated values, quoted where they must be; one a row of a vector."""
    array = numpy().array(value)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n", strict=True).writerows(array)
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
CELL_DECODERS = {**DECODERS, CSV: from_csv_cells}
CELL_ENCODERS = {**ENCODERS, CSV: to_csv_cells}


def decode(body: str | bytes, content_type: str) -> Any:
    """Return a request body as an array; UnsupportedFormat for a type that has no decoder."""
    return decode_by(DECODERS, body, content_type)


def decode_cells(body: str | bytes, content_type: str) -> Any:
    """Return a request body as an array, of text if it is CSV; UnsupportedFormat."""
    return decode_by(CELL_DECODERS, body, content_type)


def decode_by(
    decoders: Mapping[str, Callable[[Any], Any]], body: str | bytes, content_type: str
) -> Any:
    """Return what the type's decoder makes of a body; UnsupportedFormat."""
    decoder = decoders.get(media_type(content_type))
    if decoder is None:
        raise UnsupportedFormat(content_type)
    return decoder(body)


def encode(value: Any, accept: str) -> tuple[bytes, str]:
    """Return a prediction in the first of the accepted types that has an encoder, and that type."""
    torch = sys.modules.get("torch")  # a tensor exists only where torch was imported
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy().tolist()
    return encode_by(ENCODERS, value, accept)


def encode_cells(value: Any, accept: str) -> tuple[bytes, str]:
    """Return the same, with CSV's values quoted where they must be."""
    return encode_by(CELL_ENCODERS, value, accept)


def encode_by(
    encoders: Mapping[str, Callable[[Any], bytes]], value: Any, accept: str
) -> tuple[bytes, str]:
    """Return a value by the encoder of the first accepted type that has one, and that type."""
    for wanted in accept.split(","):
        content_type = media_type(wanted)
        if content_type in encoders:
            return encoders[content_type](value), content_type
    raise UnsupportedFormat(accept)
