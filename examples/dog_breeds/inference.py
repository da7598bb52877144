"""Serve the classifier that hpo.py trained: a picture in, one score for each class out.

Takes a picture's bytes (`image/jpeg`, `image/png`) or `{"url": "https://…"}`
(`application/json`); answers `[[score, …]]` in the order of the classes in `model.json`.
"""

import os

# Threads that wait for one another leave the CPU to other endpoints instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import urllib.request
from io import BytesIO

import torch
from PIL import Image

from network import Classifier
from pictures import to_tensor

TIMEOUT_S = 10
MAX_BYTES = 20 * 1024 * 1024


def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.json")) as file:
        description = json.load(file)
    model = Classifier(description["backbone"], len(description["classes"]))
    weights = torch.load(
        os.path.join(model_dir, "model.pth"), map_location="cpu", weights_only=True
    )
    model.load_state_dict(weights)
    model.image_size = description["image_size"]
    return model.eval()


def input_fn(request_body, content_type):
    kind = content_type.split(";")[0].strip().lower()
    if kind in ("image/jpeg", "image/png"):
        return read(bytes(request_body))
    if kind == "application/json":
        return read(fetch(address(request_body)))
    raise ValueError(
        f"Content type {content_type!r} is not supported: send image/jpeg, image/png, "
        'or application/json with {"url": "https://…"}'
    )


def predict_fn(image, model):
    with torch.inference_mode():
        return model(to_tensor(image, model.image_size).unsqueeze(0))


def output_fn(prediction, accept):
    if accept.split(";")[0].strip().lower() not in ("application/json", "*/*"):
        raise ValueError(f"Accept {accept!r} is not supported: the answer is application/json")
    return json.dumps(prediction.tolist())


def read(content):
    if len(content) > MAX_BYTES:
        raise ValueError(f"The picture has {len(content):,} bytes; at most {MAX_BYTES:,} are taken")
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"This is not a picture that can be read: {error}") from error
    return image


def address(request_body):
    try:
        url = json.loads(request_body)["url"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError('The JSON must be {"url": "https://…"}, a picture\'s address') from error
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"The url must begin with http:// or https://, not {str(url)[:80]!r}")
    return url


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return response.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"The picture at {url.split('?')[0]} can't be fetched: {error}") from error
