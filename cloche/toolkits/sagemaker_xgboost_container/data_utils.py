"""Training data as XGBoost's matrices: files of CSV, libsvm, parquet or recordio-protobuf.

The label is the first column; with `csv_weights` 1 the row's weight is the second.
"""

import csv
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from sagemaker_algorithm_toolkit import exceptions as exc
from scipy.sparse import vstack
from sklearn.datasets import load_svmlight_files

from .constants import xgb_content_types
from .recordio_protobuf import read

CSV = "csv"
LIBSVM = "libsvm"
PARQUET = "parquet"
RECORDIO_PROTOBUF = "recordio-protobuf"
MAX_FOLDER_DEPTH = 3
TYPES = {
    CSV: CSV,
    "text/csv": CSV,
    LIBSVM: LIBSVM,
    xgb_content_types.LIBSVM: LIBSVM,
    xgb_content_types.X_LIBSVM: LIBSVM,
    PARQUET: PARQUET,
    xgb_content_types.X_PARQUET: PARQUET,
    RECORDIO_PROTOBUF: RECORDIO_PROTOBUF,
    xgb_content_types.X_RECORDIO_PROTOBUF: RECORDIO_PROTOBUF,
}
VALID_CONTENT_TYPES = list(TYPES)
VALID_PIPED_CONTENT_TYPES = [name for name, kind in TYPES.items() if kind != LIBSVM]


def get_content_type(content_type_cfg_val: str | None) -> str:
    """Return csv, libsvm, parquet or recordio-protobuf for a media type; libsvm for none."""
    if content_type_cfg_val is None:
        return LIBSVM
    header = Message()
    header["content-type"] = content_type_cfg_val.lower()
    first, *parameters = header.get_params() or [("", "")]
    kind = TYPES.get(first[0].strip())
    if kind is None:
        raise exc.UserError(
            f"{content_type_cfg_val} is not an accepted ContentType: "
            f"{', '.join(VALID_CONTENT_TYPES)}."
        )
    if kind == CSV and dict(parameters).get("label_size", "1") != "1":
        raise exc.UserError(
            f"{content_type_cfg_val} is not an accepted csv ContentType. "
            "Optional parameter label_size must be equal to 1"
        )
    return kind


def data_files(data_path: str | Sequence[str]) -> Iterator[str]:
    """Yield the files beneath a path, or several, as deep as AWS's reader goes."""
    for path in [data_path] if isinstance(data_path, str) else data_path:
        if os.path.isfile(path):
            yield path
            continue
        for root, folders, names in os.walk(path):
            folders.sort()
            if os.path.relpath(root, path).count(os.sep) + 2 > MAX_FOLDER_DEPTH:
                folders.clear()
            for name in sorted(names):
                if not name.startswith((".", "_")):
                    yield os.path.join(root, name)


def delimiter_of(path: str) -> str:
    """Return what separates the cells of a CSV, by its first line."""
    with open(path, errors="ignore") as file:
        line = file.readline()
    try:
        found = csv.Sniffer().sniff(line).delimiter
    except csv.Error as error:
        raise exc.UserError(
            f"Could not determine delimiter on line {line[:50]}:\n{error}"
        ) from error
    logging.info("Determined delimiter of CSV input is '%s'", found)
    return found


def validate_data_file_path(data_path: str, content_type: str) -> None:
    """UserError: there is nothing at the path, or its first lines are not of that type."""
    if not os.path.exists(data_path):
        raise exc.UserError(f"{data_path} is not a valid path!")
    kind = get_content_type(content_type)
    for path in data_files(data_path):
        if kind == CSV:
            delimiter_of(path)
        elif kind == LIBSVM:
            with open(path, errors="ignore") as file:
                line = file.readline()
            if not all(":" in cell for cell in line.split()[1:]):
                raise exc.UserError(
                    f"First line '{line[:50]}...' of file '{os.path.basename(path)}' is not "
                    "'LIBSVM' format. Please ensure the file is in 'LIBSVM' format."
                )


def get_csv_dmatrix(path: str | Sequence[str], csv_weights: int, is_pipe: bool = False) -> Any:
    """Return a matrix of CSV files without a header."""
    files = list(data_files(path))
    delimiter = delimiter_of(files[0])
    frames = [pd.read_csv(file, header=None, sep=delimiter) for file in files]
    return matrix(pd.concat(frames).to_numpy(np.float32), csv_weights)


def get_libsvm_dmatrix(files_path: str | Sequence[str], is_pipe: bool = False) -> Any:
    """Return a matrix of libsvm files; indices count from 0."""
    found = load_svmlight_files(list(data_files(files_path)), zero_based=True)
    if len(found) == 2:
        return xgb.DMatrix(found[0], label=found[1])
    rows, labels = found[::2], found[1::2]
    return xgb.DMatrix(stacked(rows), label=np.concatenate(labels))


def get_parquet_dmatrix(path: str | Sequence[str], is_pipe: bool = False) -> Any:
    """Return a matrix of parquet files."""
    frames = [pd.read_parquet(file) for file in data_files(path)]
    return matrix(pd.concat(frames).to_numpy(), 0)


def get_recordio_protobuf_dmatrix(path: str | Sequence[str], is_pipe: bool = False) -> Any:
    """Return a matrix of recordio-protobuf files."""
    rows, labels = list[Any](), list[float]()
    for file in data_files(path):
        with open(file, "rb") as stream:
            found, said = read(stream.read())
        rows.append(found)
        labels += said or []
    return xgb.DMatrix(stacked(rows), label=np.asarray(labels))


def stacked(rows: Sequence[Any]) -> Any:
    """Return matrices one below the other, dense or sparse."""
    if len(rows) == 1:
        return rows[0]
    if all(isinstance(each, np.ndarray) for each in rows):
        return np.vstack(rows)
    width = max(each.shape[1] for each in rows)
    for each in rows:
        each.resize((each.shape[0], width))
    return vstack(rows).tocsr()


def matrix(data: Any, csv_weights: int) -> Any:
    """Return a matrix of rows that begin with their label and perhaps weight."""
    if csv_weights == 1:
        return xgb.DMatrix(data[:, 2:], label=data[:, 0], weight=data[:, 1])
    return xgb.DMatrix(data[:, 1:], label=data[:, 0])


READERS: Mapping[str, Callable[[str | Sequence[str], int], Any]] = {
    CSV: get_csv_dmatrix,
    LIBSVM: lambda path, _weights: get_libsvm_dmatrix(path),
    PARQUET: lambda path, _weights: get_parquet_dmatrix(path),
    RECORDIO_PROTOBUF: lambda path, _weights: get_recordio_protobuf_dmatrix(path),
}


def get_dmatrix(
    data_path: str | Sequence[str],
    content_type: str,
    csv_weights: int = 0,
    is_pipe: bool = False,
) -> Any:
    """Return the matrix of all files at a path, of a type by its short name; None: no files."""
    kind = content_type.lower()
    if is_pipe:
        raise exc.UserError("Pipe mode is not supported by Cloche.")
    if next(data_files(data_path), None) is None:
        logging.info("File path %s does not exist!", data_path)
        return None
    try:
        found = READERS[kind](data_path, csv_weights)
    except exc.UserError:
        raise
    except Exception as error:
        raise exc.UserError(f"Failed to load {kind} data with exception:\n{error}") from error
    if found.get_label().size == 0:
        raise exc.UserError("Got input data without labels. Please check the input data set.")
    return found


def get_size(data_path: str, is_pipe: bool = False) -> int:
    """Return the bytes of the files at a path; UserError: there is a hidden one."""
    if not os.path.exists(data_path):
        logging.info("Path %s does not exist!", data_path)
        return 0
    if os.path.isfile(data_path):
        return os.path.getsize(data_path)
    paths = [os.path.join(root, n) for root, _, names in os.walk(data_path) for n in names]
    if any(os.path.basename(path).startswith(".") for path in paths):
        raise exc.UserError("Hidden file found in the data path! Remove that before training.")
    return sum(map(os.path.getsize, paths))


def check_data_redundancy(train_path: str, validate_path: str) -> None:
    """Log a warning for each file that both folders have, with the same name and size."""
    for path, what in ((train_path, "training"), (validate_path, "validation")):
        if not os.path.exists(path):
            raise exc.UserError(f"{what} data's path is not existed")
    for name in sorted(set(os.listdir(train_path)) & set(os.listdir(validate_path))):
        one, other = os.path.join(train_path, name), os.path.join(validate_path, name)
        size = os.path.getsize(one)
        if os.path.isfile(one) and size == os.path.getsize(other):
            logging.warning("Suspected identical files found. (%s and %s)", one, other)
