"""What is read from an endpoint's answer."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cloche.tour.answers import ask, best, plain, to_send
from cloche.tour.errors import TourError


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("001.Affenpinscher", "Affenpinscher"),
        ("124.n02097474-Tibetan_terrier", "Tibetan terrier"),
        ("digit_3", "digit 3"),
        ("7", "7"),
        ("3.", "3."),
    ],
)
def test_class_names_as_words(label: str, words: str) -> None:
    assert plain(label) == words


def test_the_best_three_with_their_shares() -> None:
    guesses = best([0.0, 1000.0, 999.0, -5.0], ["a", "b", "c", "d"])
    assert [guess.name for guess in guesses] == ["b", "c", "a"]
    assert [round(guess.share, 3) for guess in guesses] == [0.731, 0.269, 0.0]
    assert guesses[0].score == 1000.0


def test_a_wrong_number_of_scores_is_an_error() -> None:
    with pytest.raises(TourError, match="answers 2 scores for 3 classes"):
        best([1.0, 2.0], ["a", "b", "c"])


class Runtime:
    """Answers like a `sagemaker-runtime` client, and keeps what it was sent."""

    def __init__(self, *rows: list[float]) -> None:
        self.rows = list(rows)
        self.sent: list[tuple[str, bytes]] = []

    def invoke_endpoint(self, **request: Any) -> dict[str, io.BytesIO]:
        self.sent.append((request["ContentType"], request["Body"]))
        return {"Body": io.BytesIO(json.dumps([self.rows.pop(0)]).encode())}


def picture(path: Path) -> Path:
    Image.new("RGB", (400, 300), "red").save(path)
    return path


def test_pictures_go_as_bytes_and_the_first_one_by_address_too(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "1.jpg"), picture(tmp_path / "2.png")]
    runtime = Runtime([3.0, 1.0], [3.0, 1.0], [3.0, 1.0])
    answers, lines = ask(runtime, "e", paths, ["cat", "dog"], ["cat", "dog"], "http://x/1.jpg")
    assert [kind for kind, _ in runtime.sent] == ["image/jpeg", "application/json", "image/png"]
    assert runtime.sent[0][1] == paths[0].read_bytes()
    assert json.loads(runtime.sent[1][1]) == {"url": "http://x/1.jpg"}
    assert [answer.right for answer in answers] == [True, False]
    assert Image.open(io.BytesIO(answers[0].jpeg)).size == (320, 240)
    assert "the same 2 scores" in "\n".join(lines)
    assert lines[-1] == "1 of 2 pictures were classified correctly"


def test_two_answers_for_one_picture_must_agree(tmp_path: Path) -> None:
    runtime = Runtime([3.0, 1.0], [3.0, 1.1])
    with pytest.raises(TourError, match="one thing for a picture's bytes and another for its"):
        ask(runtime, "e", [picture(tmp_path / "1.jpg")], ["cat"], ["cat", "dog"], "http://x")


def test_other_picture_files_are_sent_as_png(tmp_path: Path) -> None:
    kind, body = to_send(picture(tmp_path / "1.bmp"))
    assert kind == "image/png"
    assert Image.open(io.BytesIO(body)).format == "PNG"
