"""The handwritten digits that scikit-learn ships, as an image folder.

1,797 grey pictures of 8 x 8 (UCI's "Optical Recognition of Handwritten Digits", its test part):
https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset
"""

import random
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 64  # pixels: 8 x 8 drawn larger, smoothly, so that strokes look like strokes


def write_digits(folder: Path, *, per_class: int | None = None, seed: int = 0) -> None:
    """Write `folder`/{train,valid,test}/CLASS/*.jpg, each class split alike; always the same files.

    per_class: at most so many pictures of each digit; all (174 to 183) without it.
    """
    digits = load_digits()
    for label in range(10):
        numbers = [int(n) for n in np.flatnonzero(digits.target == label)]
        random.Random(seed * 10 + label).shuffle(numbers)
        numbers = numbers[:per_class]
        first, second = (round(len(numbers) * share) for share in (0.7, 0.85))
        parts = {
            "train": numbers[:first],
            "valid": numbers[first:second],
            "test": numbers[second:],
        }
        for part, chosen in parts.items():
            target = folder / part / f"digit_{label}"
            target.mkdir(parents=True, exist_ok=True)
            for number in chosen:
                picture(digits.images[number]).save(target / f"{number:04d}.jpg", quality=92)


def picture(values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> Image.Image:
    """Return the digit (8 x 8, 0 to 16) as dark ink on white paper."""
    ink = 255 - (values * 255 / 16).clip(0, 255)
    small = Image.fromarray(ink.astype(np.uint8))
    return small.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")
