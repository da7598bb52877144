"""The digits as an image folder: always the same files, split by class."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from cloche.tour.digits import write_digits
from cloche.tour.folder import read_folder


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.jpg")
    }


def test_all_digits_are_there_once(tmp_path: Path) -> None:
    write_digits(tmp_path)
    folder = read_folder(tmp_path)
    assert len(folder.files) == len(set(contents(tmp_path).values())) == 1797
    assert folder.classes == tuple(f"digit_{n}" for n in range(10))
    shares = {part: len(pictures) / 1797 for part, pictures in folder.pictures.items()}
    assert {part: round(share, 2) for part, share in shares.items()} == {
        "train": 0.7,
        "valid": 0.15,
        "test": 0.15,
    }
    numbers = [path.name for path in folder.files]
    assert len(set(numbers)) == 1797  # no picture in two parts


def test_the_same_files_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_digits(tmp_path / name, per_class=10)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    assert len(first) == 100


def test_pictures_are_dark_ink_on_white_paper(tmp_path: Path) -> None:
    write_digits(tmp_path, per_class=10)
    with Image.open(read_folder(tmp_path).files[0]) as image:
        assert (image.mode, image.size) == ("RGB", (64, 64))
        levels = np.asarray(image.convert("L"))
        assert levels.min() < 30
        assert levels.mean() > 128
