"""What spoils a result is found, and nothing else is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloche.datacheck.findings import Finding
from cloche.datacheck.folder import check_folder


def picture(seed: int, size: int = 96) -> Image.Image:
    """A smooth picture, different for every seed."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC)


def save(root: Path, name: str, image: Image.Image, **options: int) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with nothing wrong: two classes, 4 + 2 + 2 pictures each."""
    seed = 0
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                seed += 1
                save(tmp_path, f"{split}/{label}/{number}.jpg", picture(seed))
    return tmp_path


def errors(root: Path) -> list[str]:
    return [f"{each.severity}: {each.text}" for each in check_folder(root)]


def test_a_good_folder_has_no_finding(root):
    assert check_folder(root) == []


def test_the_same_file_in_train_and_test(root):
    (root / "test/cat/9.jpg").write_bytes((root / "train/cat/1.jpg").read_bytes())
    assert errors(root) == [
        "error: the same file is in train and test 1 time: train/cat/1.jpg = test/cat/9.jpg"
    ]


def test_a_test_folder_that_is_the_train_folder_once_more(root):
    for path in (root / "train").rglob("*.jpg"):
        (root / "test" / path.parent.name / f"again-{path.name}").write_bytes(path.read_bytes())
    (only,) = check_folder(root)
    assert only.severity == "error"
    assert only.text.startswith("the same file is in train and test 8 times: ")
    assert only.text.endswith(" and 5 more")


@pytest.mark.parametrize("options", [{"quality": 35}, {"quality": 90}])
def test_the_same_picture_saved_anew(root, options):
    again = picture(1, 200).resize((64, 64))
    save(root, "valid/cat/8.jpg", again, **options)
    assert errors(root) == [
        "error: the same picture, saved differently, is in train and valid 1 time: "
        "train/cat/0.jpg = valid/cat/8.jpg"
    ]


def test_the_same_picture_twice_in_train_is_no_leak(root):
    (root / "train/cat/9.jpg").write_bytes((root / "train/cat/1.jpg").read_bytes())
    assert check_folder(root) == []


def test_files_that_can_not_be_read(root):
    (root / "train/cat/notes.txt").write_text("no picture")
    whole = (root / "train/dog/1.jpg").read_bytes()
    (root / "train/dog/1.jpg").write_bytes(whole[: len(whole) // 2])
    (only,) = check_folder(root)
    assert only.severity == "error"
    assert only.text.startswith("2 files can't be used: train/cat/notes.txt is not a picture; ")
    assert "train/dog/1.jpg can't be read: image file is truncated" in only.text


def test_classes_empty_missing_unknown_and_uneven(root):
    (root / "train/emu").mkdir()
    save(root, "test/fox/1.jpg", picture(90))
    for number in range(40):
        save(root, f"train/cat/more-{number}.jpg", picture(100 + number))
    for path in (root / "valid/dog").iterdir():
        path.unlink()
    assert check_folder(root) == [
        Finding("warning", "empty class folders: train/emu; valid/dog"),
        Finding("warning", "classes of train that valid does not have: dog"),
        Finding("error", "classes of test that train does not have: fox"),
        Finding("warning", "in train class cat has 44 pictures, class dog has 4"),
    ]


def test_flat_and_hidden_files(tmp_path):
    save(tmp_path, "a/1.png", picture(1))
    save(tmp_path, "b/1.png", picture(1))
    (tmp_path / ".DS_Store").write_text("")
    assert check_folder(tmp_path) == []


def test_a_picture_of_one_colour_is_like_another_of_that_colour_only(root):
    save(root, "train/cat/grey.png", Image.new("RGB", (50, 50), (90, 90, 90)))
    save(root, "test/cat/white.png", Image.new("RGB", (50, 50), (250, 250, 250)))
    assert check_folder(root) == []
    buffer = io.BytesIO()
    Image.new("RGB", (80, 80), (90, 90, 90)).save(buffer, "JPEG")
    (root / "test/cat/grey.jpg").write_bytes(buffer.getvalue())
    assert len(check_folder(root)) == 1
