"""Image folders: what is taken, and what the reader sees when one does not fit."""

from pathlib import Path

import pytest

from cloche.tour.errors import TourError
from cloche.tour.folder import EXPECTED, read_folder


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def pictures(*parts: str, classes: tuple[str, ...] = ("cat", "dog")) -> list[str]:
    return [f"{part}/{name}/1.jpg" for part in parts for name in classes]


def test_a_folder_that_fits_is_read_in_a_fixed_order(tmp_path: Path) -> None:
    names = pictures("train", "valid", "test", classes=("b", "a"))
    root = make(tmp_path, *names, "train/a/.DS_Store", "train/a/2.PNG", "train/readme.txt")
    folder = read_folder(root)
    assert folder.classes == ("a", "b")
    assert [p.relative_to(root).as_posix() for p in folder.pictures["train"]] == [
        "train/a/1.jpg",
        "train/a/2.PNG",
        "train/b/1.jpg",
    ]
    assert len(folder.files) == 7
    assert folder.label(folder.files[0]) == "a"
    assert folder.summary == "2 classes; pictures: 3 train, 2 valid, 2 test"


def test_a_class_may_be_missing_from_valid_and_test(tmp_path: Path) -> None:
    root = make(tmp_path, *pictures("train"), "valid/cat/1.jpg", "test/dog/1.jpg")
    assert read_folder(root).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["train/cat/1.jpg"], "has no folder valid and no folder test. Found: train/."),
        (["photos/1.jpg", "notes.txt"], "Found: notes.txt, photos/."),
        ([f"{n}/1.jpg" for n in range(7)], "Found: 0/, 1/, 2/, 3/, 4/ and 2 more."),
        (
            [f"images/{name}" for name in pictures("train", "valid", "test")],
            "Perhaps you mean {root}/images.",
        ),
        (
            ["train/1.jpg", *pictures("valid", "test")],
            "{root}/train holds no pictures in class folders. Found: 1.jpg.",
        ),
        (
            [*pictures("train", "valid"), "test/cat/notes.txt"],
            "{root}/test holds no pictures in class folders. Found: cat/.",
        ),
        (
            pictures("train", "valid", "test", classes=("cat",)),
            "{root}/train has only one class, cat.",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, names: list[str], text: str) -> None:
    root = make(tmp_path, *names)
    with pytest.raises(TourError) as caught:
        read_folder(root)
    assert text.format(root=root) in str(caught.value)
    assert EXPECTED in str(caught.value)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, *pictures("train", "valid", "test"))
    (root / "train" / "horse").mkdir()
    with pytest.raises(TourError, match="class folders without a picture: horse"):
        read_folder(root)


def test_a_class_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, *pictures("train", "valid", "test"), "test/horse/1.jpg")
    with pytest.raises(TourError, match="test has classes that the train folder lacks: horse"):
        read_folder(root)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TourError, match="There is nothing at"):
        read_folder(tmp_path / "no")
    (tmp_path / "file").write_text("")
    with pytest.raises(TourError, match="There is a file at"):
        read_folder(tmp_path / "file")
