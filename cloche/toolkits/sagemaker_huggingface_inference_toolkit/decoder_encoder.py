"""From what is sent to what a pipeline takes, and back."""

import base64
import csv
import datetime
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mms.service import PredictionException
from PIL import Image
from sagemaker_inference import errors

from . import content_types

HEADERS = ("question", "context", "inputs")


def decode_json(content: str | bytes) -> Any:
    """Return what JSON holds."""
    return json.loads(content)


def decode_csv(string_like: str) -> dict[str, Any]:
    """Return the rows of a CSV with a header as a pipeline's inputs."""
    if not any(name in string_like.splitlines()[0].lower() for name in HEADERS):
        raise PredictionException(
            "You need to provide the correct CSV with Header columns to use it with the inference "
            "toolkit default handler.",
            400,
        )
    rows = list(csv.DictReader(io.StringIO(string_like)))
    return {"inputs": [row["inputs"] for row in rows] if "inputs" in rows[0] else rows}


def decode_image(bpayload: bytes) -> dict[str, Any]:
    """Return a picture as a pipeline's input."""
    return {"inputs": Image.open(io.BytesIO(bpayload)).convert("RGB")}


def decode_audio(bpayload: bytes) -> dict[str, Any]:
    """Return a sound as a pipeline's input."""
    return {"inputs": bytes(bpayload)}


def decode_npy(content: bytes) -> Any:
    """Return an array."""
    return np.load(io.BytesIO(content), allow_pickle=True)


def plain(value: Any) -> Any:
    """Return what JSON can hold of numbers, arrays, times and pictures."""
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, datetime.datetime):
        return str(value)
    if isinstance(value, Image.Image):
        return base64.b64encode(encode_image(value, content_types.PNG)).decode()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def encode_json(content: Any, accept_type: str | None = None) -> str:
    """Return what a pipeline gave as JSON."""
    return json.dumps(
        content, ensure_ascii=False, allow_nan=False, default=plain, separators=(",", ":")
    )


def encode_csv(content: Any, accept_type: str | None = None) -> str:
    """Return what a pipeline gave, a list of rows, as CSV with a header."""
    rows, stream = content if isinstance(content, list) else list(content), io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def encode_image(image: Any, accept_type: str = content_types.PNG) -> bytes:
    """Return a picture's file."""
    named = accept_type.rsplit("/", 1)[-1].upper()
    stream = io.BytesIO()
    image.save(stream, format="PNG" if accept_type == content_types.X_IMAGE else named)
    return stream.getvalue()


def encode_npy(array_like: Any, accept_type: str | None = None) -> bytes:
    """Return an array's file."""
    stream = io.BytesIO()
    np.save(stream, array_like)
    return stream.getvalue()


ENCODERS: Mapping[str, Callable[..., Any]] = {
    content_types.NPY: encode_npy,
    content_types.CSV: encode_csv,
    content_types.JSON: encode_json,
    **dict.fromkeys(content_types.VISION_TYPES, encode_image),
}
DECODERS: Mapping[str, Callable[..., Any]] = {
    content_types.NPY: decode_npy,
    content_types.CSV: decode_csv,
    content_types.JSON: decode_json,
    **dict.fromkeys(content_types.VISION_TYPES, decode_image),
    **dict.fromkeys(content_types.AUDIO_TYPES, decode_audio),
}


def decode(content: Any, content_type: str = content_types.JSON) -> Any:
    """Return what was sent as a handler takes it."""
    try:
        decoder = DECODERS[content_type]
    except KeyError as error:
        raise errors.UnsupportedFormatError(content_type) from error
    text = content_type in content_types.UTF8_TYPES and isinstance(content, bytes | bytearray)
    return decoder(content.decode() if text else content)


def encode(content: Any, accept_type: str = content_types.JSON) -> Any:
    """Return what a handler gave in the type that the client wants."""
    try:
        encoder = ENCODERS[accept_type]
    except KeyError as error:
        raise errors.UnsupportedFormatError(accept_type) from error
    return encoder(content, accept_type)
