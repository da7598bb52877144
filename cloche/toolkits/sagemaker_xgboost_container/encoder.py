"""From what a request sends to XGBoost's matrix."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xgboost as xgb
from sagemaker_training import errors
from sklearn.datasets import load_svmlight_file

from .constants import xgb_content_types
from .recordio_protobuf import read


def csv_to_dmatrix(input: str | bytes, dtype: Any = None) -> Any:
    """Return the matrix of a CSV's cells; an empty one is not a number."""
    text = input.decode() if isinstance(input, bytes | bytearray) else input
    lines = text.split("\n")
    sniffed = csv.Sniffer().sniff(lines[0][:512]).delimiter
    delimiter = "," if sniffed.isalnum() else sniffed
    rows = [[cell or "nan" for cell in line.split(delimiter)] for line in lines]
    return xgb.DMatrix(np.array(rows).astype(dtype))


def libsvm_to_dmatrix(string_like: bytes | str) -> Any:
    """Return the matrix of libsvm lines; indices count from 0."""
    data = string_like.encode() if isinstance(string_like, str) else bytes(string_like)
    rows, labels = load_svmlight_file(io.BytesIO(data), zero_based=True)
    return xgb.DMatrix(rows, label=labels)


def recordio_protobuf_to_dmatrix(string_like: bytes) -> Any:
    """Return the matrix of records; their labels are left out."""
    return xgb.DMatrix(read(bytes(string_like))[0])


DECODERS: Mapping[str, Callable[..., Any]] = {
    "text/csv": csv_to_dmatrix,
    xgb_content_types.LIBSVM: libsvm_to_dmatrix,
    xgb_content_types.X_LIBSVM: libsvm_to_dmatrix,
    xgb_content_types.X_RECORDIO_PROTOBUF: recordio_protobuf_to_dmatrix,
}


def decode(obj: Any, content_type: str) -> Any:
    """Return the matrix of what was sent."""
    kind = content_type.split(";")[0].strip().lower()
    try:
        decoder = DECODERS[kind]
    except KeyError as error:
        raise errors.UnsupportedFormatError(kind) from error
    return decoder(obj)


def json_to_jsonlines(json_data: Any) -> bytes:
    """Return each entry of a JSON object's one list as a line."""
    found = json_data if isinstance(json_data, dict) else json.loads(json_data)
    if len(found) != 1:
        raise ValueError("JSON response is not compatible for conversion to jsonlines.")
    return "".join(f"{json.dumps(entry)}\n" for v in found.values() for entry in v).encode()
