"""inference.py: pictures of every kind in, scores out; what is not a picture is refused."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.torch


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours() -> Image.Image:
    """A picture of 60 x 50 whose left half is red and whose right half is blue."""
    image = Image.new("RGB", (60, 50), (220, 30, 30))
    image.paste((30, 30, 220), (30, 0, 60, 50))
    return image


@pytest.fixture(scope="module")
def model(inference: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with random weights, saved as hpo.py does and loaded as an endpoint does."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    fresh = inference.Classifier("efficientnet-lite0", 5)
    torch.save(fresh.state_dict(), folder / "model.pth")
    description = {"backbone": "efficientnet-lite0", "image_size": 64, "classes": [*"abcde"]}
    (folder / "model.json").write_text(json.dumps(description))
    return inference.model_fn(str(folder))


def scores(inference: ModuleType, model: Any, body: bytes | str, kind: str) -> list[float]:
    image = inference.input_fn(body, kind)
    rows = json.loads(inference.output_fn(inference.predict_fn(image, model), "application/json"))
    assert len(rows) == 1
    return list(rows[0])


def see_through() -> Image.Image:
    image = Image.new("RGBA", (60, 50), (10, 200, 10, 0))
    image.paste((220, 30, 30, 255), (0, 0, 30, 50))
    return image


PICTURES = {
    "grey": encoded(colours().convert("L")),
    "black and white": encoded(colours().convert("1")),
    "grey, see-through": encoded(see_through().convert("LA")),
    "palette": encoded(colours().convert("P")),
    "see-through": encoded(see_through()),
    "palette, see-through": encoded(see_through().quantize(8)),
    "16 bit": encoded(Image.fromarray(np.full((50, 60), 40000, np.uint16))),
    "CMYK": encoded(colours().convert("CMYK"), "JPEG"),
    "one pixel": encoded(Image.new("RGB", (1, 1))),
    "very wide": encoded(Image.new("RGB", (900, 3))),
}


@pytest.mark.parametrize("name", PICTURES)
def test_any_picture_is_taken(inference: ModuleType, model: Any, name: str) -> None:
    kind = "image/jpeg" if name == "CMYK" else "image/png"
    answer = scores(inference, model, PICTURES[name], kind)
    assert len(answer) == 5
    assert all(np.isfinite(answer))


def rgb(inference: ModuleType, body: bytes) -> "np.ndarray[Any, Any]":
    pictures: Any = inference.to_tensor(inference.input_fn(body, "image/png"), 32)
    return pictures.permute(1, 2, 0).numpy()


def test_see_through_parts_are_white(inference: ModuleType) -> None:
    for name in ("see-through", "palette, see-through"):
        assert rgb(inference, PICTURES[name])[16, 28].tolist() == [255, 255, 255]


def test_16_bit_values_are_scaled_not_clipped(inference: ModuleType) -> None:
    assert set(rgb(inference, PICTURES["16 bit"]).flatten().tolist()) == {155}


def test_a_photograph_is_turned_upright(inference: ModuleType) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = rgb(inference, encoded(colours().rotate(180), "JPEG", exif=exif, quality=95))
    assert turned[16, 4, 0] > 150 > turned[16, 28, 0]  # red is on the left again


def test_an_answer_does_not_hang_on_its_neighbours(inference: ModuleType, model: Any) -> None:
    one = inference.to_tensor(colours(), 64)
    other = inference.to_tensor(see_through(), 64)
    with torch.inference_mode():
        both = model(torch.stack([one, other]))
        alone = model(one.unsqueeze(0))
    assert torch.allclose(both[0], alone[0], atol=1e-4)


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {"/dog.jpg": encoded(colours(), "JPEG"), "/page": b"<html>"}
        path = self.path.split("?")[0]
        self.send_response(200 if path in answers else 404)
        self.end_headers()
        self.wfile.write(answers.get(path, b""))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_picture_by_address_gives_the_same_answer(
    inference: ModuleType, model: Any, site: str
) -> None:
    body = json.dumps({"url": f"{site}/dog.jpg?X-Amz-Signature=1"})
    by_url = scores(inference, model, body, "application/json")
    assert by_url == scores(inference, model, encoded(colours(), "JPEG"), "image/jpeg")
    assert by_url == scores(inference, model, body.encode(), "application/json; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"not a picture", "image/jpeg", "This is not a picture that can be read"),
        (b"", "image/png", "This is not a picture that can be read"),
        (encoded(colours(), "JPEG")[:300], "image/jpeg", "This is not a picture that can be read"),
        (b"x" * (20 * 1024 * 1024 + 1), "image/png", "at most 20,971,520 are taken"),
        (b"a,b", "text/csv", "Content type 'text/csv' is not supported: send image/jpeg"),
        ("{}", "application/json", 'The JSON must be {"url": "https://…"}'),
        ("[1]", "application/json", 'The JSON must be {"url": "https://…"}'),
        ("{", "application/json", 'The JSON must be {"url": "https://…"}'),
        ('{"url": "file:///etc/passwd"}', "application/json", "must begin with http:// or"),
        ('{"url": 3}', "application/json", "must begin with http:// or"),
        ('{"url": "http://127.0.0.1:1/"}', "application/json", "can't be fetched"),
    ],
)
def test_what_is_no_picture_is_refused(
    inference: ModuleType, body: bytes | str, kind: str, text: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        inference.input_fn(body, kind)


def test_addresses_of_something_else_are_refused(inference: ModuleType, site: str) -> None:
    with pytest.raises(ValueError, match="HTTP Error 404"):
        inference.input_fn(json.dumps({"url": f"{site}/none?key=secret"}), "application/json")
    with pytest.raises(ValueError, match="not a picture"):
        inference.input_fn(json.dumps({"url": f"{site}/page"}), "application/json")


def test_other_answers_than_json_are_refused(inference: ModuleType, model: Any) -> None:
    with pytest.raises(ValueError, match="the answer is application/json"):
        inference.output_fn(torch.zeros(1, 5), "text/csv")
    assert inference.output_fn(torch.zeros(1, 2), "*/*") == "[[0.0, 0.0]]"
