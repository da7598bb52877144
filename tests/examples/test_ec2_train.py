"""ec2_train.py as it is run on a plain machine: no arguments, no variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.torch


def run(
    example: Path, folder: Path, script: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    return subprocess.run(
        [sys.executable, str(script or example / "ec2_train.py")],
        env=inherited
        | {"IMAGE_SIZE": "64", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(example)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_it_trains_on_the_train_folder_and_leaves_a_model(
    example: Path, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "dogImages").symlink_to(shapes)
    result = run(example, tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "Starting Model Training: 40 pictures of 2 classes" in lines
    assert lines[-1] == "saved"
    state = torch.load(tmp_path / "TrainedModels" / "model.pth", weights_only=True)
    assert state["head.weight"].shape[0] == 2


def test_it_prints_how_far_it_is(example: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "dogImages").symlink_to(shapes)
    script = tmp_path / "often.py"
    text = (example / "ec2_train.py").read_text()
    assert "PROGRESS_S = 5 " in text
    script.write_text(text.replace("PROGRESS_S = 5 ", "PROGRESS_S = 0 "))
    lines = run(example, tmp_path, script).stdout.splitlines()
    assert "Epoch 1/2: 32 of 40 pictures" in lines
    assert any(line.startswith("Validation: ") for line in lines)
    assert any(line.startswith("Test: ") for line in lines)


def test_splits_of_different_classes_are_refused(
    example: Path, shapes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "dogImages"
    data.mkdir()
    (data / "train").symlink_to(shapes / "train")
    for split in ("valid", "test"):
        (data / split).mkdir()
        (data / split / "disc").symlink_to(shapes / split / "disc")
    result = run(example, tmp_path)
    assert result.returncode == 1
    assert "dogImages/valid and dogImages/train do not have the same classes" in result.stderr
