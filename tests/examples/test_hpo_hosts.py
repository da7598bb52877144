"""hpo.py on several hosts, and with kept features: the same numbers as without. No platform."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]  # minutes on a busy machine alone

SMALL = ("--image_size", "32", "--backbone", "efficientnet-lite0", "--learning_rate", "0.01")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def train(
    example: Path, data: Sequence[Path], folder: Path, *arguments: str, **more: str
) -> list[tuple[int, str, str]]:
    """Run the script once for each data folder, as a host each: code, output, errors of each."""
    names = [f"algo-{number}" for number in range(1, len(data) + 1)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    cluster = {"SM_HOSTS": json.dumps(names), "MASTER_ADDR": "127.0.0.1"}
    processes = []
    port = free_port()
    for name, pictures in zip(names, data, strict=True):
        own = {
            "SM_CURRENT_HOST": name,
            "MASTER_PORT": port,
            "SM_CHANNEL_TRAINING": str(pictures),
            "SM_MODEL_DIR": str(folder / name / "model"),
            "SM_OUTPUT_DATA_DIR": str(folder / name / "output"),
            "SM_NUM_CPUS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, str(example / "hpo.py"), *SMALL, *arguments],
                env=inherited | cluster | own | more,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = []
    try:
        for process in processes:
            out, errors = process.communicate(timeout=300)
            results.append((process.returncode, out, errors))
    finally:
        for process in processes:
            process.kill()
    return results


def weights(folder: Path, host: str = "algo-1") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(
        folder / host / "model" / "model.pth", weights_only=True
    )
    return loaded


def history(folder: Path) -> list[float]:
    kept = json.loads((folder / "algo-1" / "output" / "history.json").read_text())
    names = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return [epoch[name] for epoch in kept["epochs"] for name in names] + list(kept["test"].values())


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    assert history(one) == pytest.approx(history(other), abs=1e-5)


# 40 pictures in batches of 14 (14, 14, 12) over 3 hosts: no share is even, some shares are larger.
EPOCHS = ("--epochs", "1", "--batch_size", "14")


@pytest.fixture(scope="module")
def alone(example: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one host makes of it, everything computed anew."""
    folder = tmp_path_factory.mktemp("alone")
    ((code, _, errors),) = train(example, [shapes], folder, *EPOCHS, "--no-cache-features")
    assert code == 0, errors
    return folder


def test_three_hosts_agree_with_one(
    example: Path, shapes: Path, alone: Path, tmp_path: Path
) -> None:
    results = train(example, [shapes] * 3, tmp_path, *EPOCHS, "--cache-features", "false")
    assert [code for code, _, _ in results] == [0, 0, 0], results
    assert_same(alone, tmp_path)
    assert results[0][1].count("Testing Accuracy: ") == 1
    assert "Testing" not in results[1][1] and "Rank 1 of 3 (gloo)" in results[1][1]
    assert sorted(path.name for path in tmp_path.glob("*/model")) == ["model"], "rank 0 saves"


def test_hosts_with_different_pictures_are_refused(
    example: Path, shapes: Path, tmp_path: Path
) -> None:
    other = tmp_path / "part"
    for path in sorted(shapes.rglob("*.png"))[:-1]:
        target = other / path.relative_to(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    results = train(example, [shapes, other], tmp_path, "--epochs", "1")
    assert [code for code, _, _ in results] == [1, 1], results
    assert all("The hosts do not have the same pictures" in errors for _, _, errors in results)


def test_features_are_computed_once_and_change_no_number(
    example: Path, shapes: Path, alone: Path, tmp_path: Path
) -> None:
    """Two hosts compute them, each a part; then one host finds them."""
    logs = []
    kept = str(tmp_path / "kept")
    for hosts in (2, 1):
        data = [shapes] * hosts
        results = train(example, data, tmp_path, *EPOCHS, SM_CHECKPOINT_DIR=kept)
        assert all(code == 0 for code, _, _ in results), results
        assert_same(alone, tmp_path)
        logs.append(results[0][1])
    assert "batch norm in evaluation mode" in logs[0]
    assert "Features of train: 40 pictures, 1 views each" in logs[0]
    assert logs[1].count(": found in ") == 3
    (folder,) = (tmp_path / "kept" / "features").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["test.pt", "train.pt", "valid.pt"]


def test_views_take_turns(hpo: ModuleType, shapes: Path) -> None:
    pictures = hpo.Pictures(str(shapes / "train"), 32)
    shares = hpo.Shares(pictures, hpo.parse(["--data", "x", "--batch_size", "16"]),
                        hpo.Cluster(), True, 3)  # fmt: skip
    first = [place for batch in shares for place in batch]
    shares.start(2)
    second = [place for batch in shares for place in batch]
    assert sorted(index for index, _ in first) == list(range(40)) != [i for i, _ in first]
    views = dict(first)
    assert all(view == (views[index] + 1) % 3 for index, view in second)
    plain, one, again = (pictures[5, view][0] for view in (0, 1, 1))
    assert torch.equal(one, again) and not torch.equal(plain, one)
    assert one.shape == plain.shape == (3, 32, 32)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shares_make_up_the_same_batches(hpo: ModuleType, ranks: int) -> None:
    """Seven pictures in batches of four: every number of hosts sees 4, then the other 3."""
    args = hpo.parse(["--data", "x", "--batch_size", "4"])
    alone = [set(batch) for batch in hpo.Shares(range(7), args, hpo.Cluster(), True)]
    shares = [hpo.Shares(range(7), args, hpo.Cluster(rank, ranks), True) for rank in range(ranks)]
    together = [[place for part in parts for place in part] for parts in zip(*shares, strict=True)]
    assert [set(batch) for batch in together] == alone
    assert [len(batch) for batch in together] == [4, 3] == [shares[0].whole(n) for n in (0, 1)]


def test_the_key_changes_with_what_features_hang_on(
    hpo: ModuleType, on_path: None, shapes: Path, tmp_path: Path
) -> None:
    class Body:
        backbone = "b"
        body = torch.nn.Linear(2, 2)

    keys = {hpo.key_of(Body, 32, 1, "[]"), hpo.key_of(Body, 64, 1, "[]"),
            hpo.key_of(Body, 32, 2, "[]"), hpo.key_of(Body, 32, 1, "[1]")}  # fmt: skip
    torch.nn.init.zeros_(Body.body.weight)
    keys.add(hpo.key_of(Body, 32, 1, "[]"))
    assert len(keys) == 5
    files = hpo.listing(str(shapes), {"train": hpo.Pictures(str(shapes / "train"), 32)})
    assert json.loads(files)[0][:2] == ["train", "train/disc/0.png"]


def test_a_broken_file_of_features_is_made_anew(
    hpo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = sys.modules["features"]
    path = str(tmp_path / "a" / "train.pt")
    assert features.read(path, (2, 1, 3)) is None
    features.write(path, torch.ones(2, 1, 3))
    assert torch.equal(features.read(path, (2, 1, 3)), torch.ones(2, 1, 3))
    assert features.read(path, (2, 2, 3)) is None
    Path(path).write_bytes(b"half")
    assert features.read(path, (2, 1, 3)) is None
    assert "it is computed again" in capsys.readouterr().out
    assert [p.name for p in Path(path).parent.iterdir()] == ["train.pt"]
