"""Records of protobuf, SageMaker's own format (Common Data Formats), as rows and labels."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from sagemaker_training import record_pb2
from scipy.sparse import csr_matrix, vstack

MAGIC = 0xCED7230A
KINDS = ("float32_tensor", "float64_tensor", "int32_tensor")


def records(data: bytes) -> Iterator[Any]:
    """Yield the records of a file."""
    place = 0
    while place < len(data):
        magic, length = struct.unpack_from("<II", data, place)
        if magic != MAGIC:
            raise ValueError(f"no recordio at byte {place}")
        record = record_pb2.Record()
        record.ParseFromString(data[place + 8 : place + 8 + length])
        yield record
        place += 8 + (length + 3) // 4 * 4


def tensor(value: Any) -> Any:
    """Return the tensor that a value is."""
    return next(getattr(value, kind) for kind in KINDS if value.HasField(kind))


def read(data: bytes) -> tuple[Any, Any]:
    """Return the rows, dense or sparse, and the labels (None where a record has none)."""
    rows, labels, sparse = list[Any](), list[float](), False
    for record in records(data):
        found = tensor(record.features["values"])
        if found.keys:
            sparse = True
            row = np.zeros(len(found.keys), dtype=int), np.asarray(found.keys, dtype=int)
            shape = (1, found.shape[0] if found.shape else int(max(found.keys)) + 1)
            rows.append(csr_matrix((np.asarray(found.values), row), shape=shape))
        else:
            rows.append(np.asarray(found.values))
        if record.label:
            labels.extend(tensor(record.label["values"]).values)
    return vstack(rows).tocsr() if sparse else np.vstack(rows), labels or None
