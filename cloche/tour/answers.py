"""Questions to the endpoint: pictures as bytes and by address, and the scores that come back."""

import json
import math
import re
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from cloche.tour.errors import TourError
from cloche.tour.facts import Guess, Prediction

TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
BEST = 3
PAGE_PIXELS = 320  # the longest side of a picture in the report


def ask(
    runtime: Any,
    endpoint: str,
    pictures: Sequence[Path],
    labels: Sequence[str],
    classes: Sequence[str],
    url: str,
) -> tuple[list[Prediction], list[str]]:
    """Send each picture's bytes, and the first one again as `url`; returns answers and a summary.

    Raises TourError when the two answers for the first picture differ.
    """
    answers, lines = [], []
    for number, (path, label) in enumerate(zip(pictures, labels, strict=True)):
        content_type, body = to_send(path)
        scores, seconds = invoke(runtime, endpoint, content_type, body)
        answers.append(Prediction(for_page(path), plain(label), best(scores, classes), seconds))
        if number == 0:
            address = json.dumps({"url": url}).encode()
            again, url_seconds = invoke(runtime, endpoint, "application/json", address)
            same(scores, again)
            lines += shown(answers[0])
            lines += [
                f"As {content_type} bytes in {seconds * 1000:.0f} ms; as a url in "
                f"{url_seconds * 1000:.0f} ms: the same {len(scores)} scores"
            ]
    right = sum(answer.right for answer in answers)
    if len(answers) > 1:
        lines.append(f"{right} of {len(answers)} pictures were classified correctly")
    return answers, lines


def invoke(
    runtime: Any, endpoint: str, content_type: str, body: bytes
) -> tuple[list[float], float]:
    """Return the scores for one picture, and the seconds that the answer took."""
    begun = time.monotonic()
    reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType=content_type, Body=body)
    rows = json.loads(reply["Body"].read())
    return [float(score) for score in rows[0]], time.monotonic() - begun


def to_send(path: Path) -> tuple[str, bytes]:
    """Return a picture file as the endpoint takes it; other kinds than JPEG and PNG as PNG."""
    content_type = TYPES.get(path.suffix.lower())
    if content_type is not None:
        return content_type, path.read_bytes()
    with Image.open(path) as image:
        return "image/png", encoded(image, "PNG")


def for_page(path: Path) -> bytes:
    """Return the picture as a JPEG small enough for a page."""
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((PAGE_PIXELS, PAGE_PIXELS))
        return encoded(small, "JPEG")


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return the bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def best(scores: Sequence[float], classes: Sequence[str]) -> tuple[Guess, ...]:
    """Return the classes with the best scores, and each one's share of all (softmax)."""
    if len(scores) != len(classes):
        raise TourError(f"The endpoint answers {len(scores)} scores for {len(classes)} classes")
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    order = sorted(range(len(scores)), key=lambda n: -scores[n])[:BEST]
    return tuple(Guess(plain(classes[n]), scores[n], weights[n] / total) for n in order)


def same(first: Sequence[float], second: Sequence[float]) -> None:
    """Raise TourError when two answers for one picture differ by more than rounding."""
    if len(first) != len(second) or not all(
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(first, second, strict=True)
    ):
        raise TourError(
            "The endpoint answers one thing for a picture's bytes and another for its URL: "
            f"{first[:3]}… and {second[:3]}…"
        )


def plain(label: str) -> str:
    """Return a class folder's name as words: `002.Afghan_hound` is `Afghan hound`.

    A WordNet number in front, as ImageNet's folders have it, goes too.
    """
    return re.sub(r"^(\d+\.)?(n\d{8}-)?(?=.)", "", label).replace("_", " ")


def shown(answer: Prediction) -> list[str]:
    """Return an answer as lines for the terminal."""
    lines = [f"True class: {answer.truth}"]
    width = max(len(guess.name) for guess in answer.guesses)
    for place, guess in enumerate(answer.guesses, 1):
        mark = " ✓" if guess.name == answer.truth else ""
        score = f"(score {guess.score:.2f})"
        lines.append(f"{place}. {guess.name:<{width}}  {guess.share:6.1%}  {score}{mark}")
    return lines
