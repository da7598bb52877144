"""hpo.py as a plain script: no platform, only its arguments and the SM_* variables."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.torch


def run(
    example: Path, folder: Path, *arguments: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    return subprocess.run(
        [sys.executable, str(example / "hpo.py"), *arguments],
        env=inherited | {"SM_NUM_CPUS": "2", "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(
    example: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder that a run left its model and output in, and what it printed."""
    folder = tmp_path_factory.mktemp("job")
    result = run(
        example,
        folder,
        *("--epochs", "2", "--batch_size", "6", "--learning_rate", "0.01"),
        *("--image_size", "64", "--backbone", "efficientnet-lite0"),
        SM_CHANNEL_TRAINING=str(shapes),
        SM_MODEL_DIR=str(folder / "model"),
        SM_OUTPUT_DATA_DIR=str(folder / "output"),
        SM_HOSTS='["algo-1"]',
        SM_CURRENT_HOST="algo-1",
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern + r": ([0-9.]+)", text)]


def test_it_learns_and_says_so(trained: tuple[Path, str]) -> None:
    _, log = trained
    assert "Data: 2 classes; 40 pictures to train on, 10 to validate, 14 to test" in log
    losses = numbers("Training Loss", log)
    assert len(losses) == len(numbers("Validation Loss", log)) == 2
    assert losses[1] < losses[0]
    assert len(numbers("Testing Loss", log)) == len(numbers("Testing Accuracy", log)) == 1
    assert numbers("Testing Accuracy", log)[0] > 0.9


def test_the_history_holds_the_same_numbers(trained: tuple[Path, str]) -> None:
    folder, log = trained
    history = json.loads((folder / "output" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    for name, pattern in (
        ("train_loss", "Training Loss"),
        ("valid_accuracy", "Validation Accuracy"),
    ):
        kept = [round(epoch[name], 4) for epoch in history["epochs"]]
        assert kept == numbers(pattern, log)
    assert round(history["test"]["loss"], 4) == numbers("Testing Loss", log)[0]
    assert history["backbone"] == "efficientnet-lite0"


def test_the_model_is_a_state_dict_with_one_output_a_class(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    weights = torch.load(folder / "model" / "model.pth", weights_only=True)
    assert weights["head.weight"].shape == (2, 1280)
    description = json.loads((folder / "model" / "model.json").read_text())
    assert description == {
        "backbone": "efficientnet-lite0",
        "image_size": 64,
        "classes": ["disc", "frame"],
    }


def test_losses_are_means_over_all_pictures(trained: tuple[Path, str], shapes: Path) -> None:
    """The last batch is smaller: a mean of the batches' means would be another number."""
    folder, log = trained
    check = """
import sys, json, torch
sys.path.insert(0, sys.argv[1])
from inference import model_fn, predict_fn
from pictures import load
from pathlib import Path
model = model_fn(sys.argv[2])
losses, right = [], 0
for label, name in enumerate(("disc", "frame")):
    for path in sorted((Path(sys.argv[3]) / "test" / name).iterdir()):
        scores = predict_fn(load(str(path)), model)
        losses.append(torch.nn.functional.cross_entropy(scores, torch.tensor([label])).item())
        right += int(scores.argmax().item() == label)
print(json.dumps([sum(losses) / len(losses), right / len(losses)]))
"""
    example = Path(__file__).parents[2] / "examples" / "dog_breeds"
    done = subprocess.run(
        [sys.executable, "-c", check, str(example), str(folder / "model"), str(shapes)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    loss, accuracy = json.loads(done.stdout)
    assert loss == pytest.approx(numbers("Testing Loss", log)[0], abs=2e-4)
    assert accuracy == pytest.approx(numbers("Testing Accuracy", log)[0], abs=2e-4)


def test_the_same_seed_gives_the_same_numbers_and_tells_its_backbone(
    example: Path, shapes: Path, tmp_path: Path
) -> None:
    """`auto` without a way to the internet: the packaged backbone, and the reason."""
    logs = []
    for seed in ("1", "1", "2"):
        result = run(
            example,
            tmp_path,
            *("--epochs", "1", "--image_size", "32", "--seed", seed),
            *("--data", str(shapes), "--model-dir", "m", "--output-data-dir", "o"),
            TORCH_HOME=str(tmp_path / "torch"),
            HTTPS_PROXY="http://127.0.0.1:9",
            https_proxy="http://127.0.0.1:9",
        )
        assert result.returncode == 0, result.stderr
        logs.append(re.sub(r"\(.* images/s\)", "", result.stdout))
    assert logs[0] == logs[1] != logs[2]
    assert "Backbone: efficientnet-lite0 (the weights of resnet50 can't be had: " in logs[0]


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        ((), {}, "--data is needed where SM_CHANNEL_TRAINING is not set"),
        (("--data", "x", "--epochs", "0"), {}, "must be at least 1, not 0"),
        (("--data", "x", "--image_size", "100"), {}, "must be a multiple of 32, not 100"),
        (("--data", "x"), {"SM_HOSTS": '["algo-1", "algo-2"]'}, "this job has 2"),
    ],
)
def test_wrong_arguments_are_refused(
    example: Path, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], text: str
) -> None:
    result = run(example, tmp_path, *arguments, **variables)
    assert result.returncode != 0
    assert text in result.stderr
