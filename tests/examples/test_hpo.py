"""hpo.py as a plain script: no platform, only its arguments and the SM_* variables."""

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

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
        timeout=280,
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


def test_losses_are_means_over_all_pictures(
    trained: tuple[Path, str], shapes: Path, inference: ModuleType
) -> None:
    """The last batch is smaller: a mean of the batches' means would be another number."""
    folder, log = trained
    model = inference.model_fn(str(folder / "model"))
    losses, right = [], 0
    for label, name in enumerate(("disc", "frame")):
        for path in sorted((shapes / "test" / name).iterdir()):
            scores = inference.predict_fn(inference.read(path.read_bytes()), model)
            losses.append(torch.nn.functional.cross_entropy(scores, torch.tensor([label])).item())
            right += int(scores.argmax().item() == label)
    assert sum(losses) / len(losses) == pytest.approx(numbers("Testing Loss", log)[0], abs=2e-4)
    assert right / len(losses) == pytest.approx(numbers("Testing Accuracy", log)[0], abs=2e-4)


def test_the_same_seed_gives_the_same_numbers_and_says_its_backbone(
    example: Path, shapes: Path, tmp_path: Path
) -> None:
    """`auto` without a way to the internet: the packaged backbone, and the reason."""
    logs = []
    for seed in ("1", "1"):
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
        logs.append(re.sub(r"(Features of .*)?\(.* images/s\)", "", result.stdout))
        shutil.rmtree(tmp_path / "o" / "features")
    assert logs[0] == logs[1]
    assert "Backbone: efficientnet-lite0 (the weights of resnet50 can't be downloaded: " in logs[0]


def test_a_proxy_without_a_connection_is_not_a_number_of_http(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(example))
    cause = importlib.import_module("network").cause
    through_proxy = URLError(OSError("Tunnel connection failed: 502 Bad Gateway"))
    assert cause(through_proxy) == "no connection to the internet through the proxy"
    unknown = URLError(socket.gaierror(-2, "Name or service not known"))
    assert cause(unknown) == "no connection to the internet (Name or service not known)"
    assert cause(URLError(OSError("Connection refused"))) == "Connection refused"
    assert cause(RuntimeError("invalid hash value")) == "invalid hash value"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "--data is needed where SM_CHANNEL_TRAINING is not set"),
        (("--data", "x", "--epochs", "0"), "must be at least 1, not 0"),
        (("--data", "x", "--image_size", "100"), "must be a multiple of 32, not 100"),
        (("--data", "x", "--backbone", "vgg"), "invalid choice: 'vgg'"),
        (("--data", "x", "--cache-features", "1"), "must be true or false, not 1"),
    ],
)
def test_wrong_arguments_are_refused(
    hpo: ModuleType, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    with pytest.raises(SystemExit):
        hpo.parse([*arguments])
    assert text in capsys.readouterr().err


def test_defaults_come_from_the_job(hpo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SM_CHANNEL_TRAINING", "/opt/ml/input/data/training"),
        ("SM_MODEL_DIR", "/opt/ml/model"),
        ("SM_OUTPUT_DATA_DIR", "/opt/ml/output/data"),
        ("SM_HOSTS", '["algo-1", "algo-2"]'),
        ("SM_CURRENT_HOST", "algo-2"),
    ):
        monkeypatch.setenv(name, value)
    args = hpo.parse(["--learning_rate", "0.1", "--batch_size", "64", "--backend", "gloo"])
    assert (args.data, args.model_dir) == ("/opt/ml/input/data/training", "/opt/ml/model")
    assert (args.hosts, args.current_host) == (["algo-1", "algo-2"], "algo-2")
    assert (args.learning_rate, args.batch_size) == (0.1, 64)
    assert args.cache_features and args.checkpoint_dir == "/opt/ml/output/data"
    for words in (["--no-cache-features"], ["--cache-features", "False"]):
        assert not hpo.parse(words).cache_features
    monkeypatch.setenv("SM_CHECKPOINT_DIR", "/somewhere")
    assert hpo.parse(["--cache-features"]).checkpoint_dir == "/somewhere"


def test_a_class_that_is_not_trained_is_refused(
    hpo: ModuleType, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "star").mkdir()
    with pytest.raises(ValueError, match=r"has classes that the train folder lacks: \['star'"):
        hpo.Pictures(str(tmp_path), 32, ["disc", "frame"])
