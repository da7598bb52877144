"""The data check's warnings in a job's log."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_client import BUCKET, Trainer, channel

from cloche.testing.platform import Platform

SAID = "Cloche's data check: "


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def picture(seed: int) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="module")
def dogs(trainer: Trainer) -> str:
    """An image folder in S3 of which nothing is wrong."""
    for number, key in enumerate(
        f"dogs/{split}/{label}/{n}.jpg"
        for split in ("train", "test")
        for label in ("akita", "boxer")
        for n in range(2)
    ):
        trainer.put(key, picture(number))
    return f"s3://{BUCKET}/dogs"


def said(log: str) -> list[str]:
    return [line.partition(SAID)[2] for line in log.splitlines() if SAID in line]


def test_good_pictures_are_passed_over_in_silence(trainer: Trainer, dogs: str) -> None:
    log = trainer.completed("print('done')", InputDataConfig=[channel("training", dogs)])
    assert said(log) == []


def test_training_on_the_test_folder_is_noticed(trainer: Trainer, dogs: str) -> None:
    channels = [channel("train", f"{dogs}/test"), channel("test", f"{dogs}/test")]
    log = trainer.completed("print('done')", InputDataConfig=channels)
    assert said(log) == [
        f"error: channel train is {dogs}/test, a folder for testing",
        "error: the same file is in train and test 4 times: train/akita/0.jpg = test/akita/0.jpg; "
        "train/akita/1.jpg = test/akita/1.jpg; train/boxer/0.jpg = test/boxer/0.jpg and 1 more",
    ]


def test_a_leak_inside_one_channel_is_told_to_every_job_and_looked_for_once(
    trainer: Trainer, dogs: str, platform: Platform
) -> None:
    trainer.put("leak/train/akita/1.jpg", picture(1))
    trainer.put("leak/test/akita/2.jpg", picture(1))
    inputs = [channel("training", f"s3://{BUCKET}/leak")]
    expected = [
        "error: the same file is in train and test 1 time: "
        "training/train/akita/1.jpg = training/test/akita/2.jpg"
    ]
    kept: Path = platform.home.data_checks
    assert said(trainer.completed("print('one')", InputDataConfig=inputs)) == expected
    files = sorted(kept.iterdir())
    assert said(trainer.completed("print('two')", InputDataConfig=inputs)) == expected
    assert sorted(kept.iterdir()) == files
