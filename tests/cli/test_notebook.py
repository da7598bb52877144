"""A whole notebook in the manner of the course, unchanged, every cell, under `cloche run`.

It names GPU instances, fetches data with wget, weights and digits by torchvision and a picture
from public addresses of S3, uses Debugger's hooks and rules, MPI and an endpoint. Servers on
loopback stand in for the outside. The cells with the tag `long` run in `make soak`.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree, which
from typing import Any

import pytest
from cli_command import Cloche, end
from PIL import Image

from cloche.testing.extent import Extent
from cloche.testing.platform import free_port
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in

torch = pytest.importorskip("torch")
nbformat = pytest.importorskip("nbformat")
COURSE = Path(__file__).parent / "course"
BREEDS = ("001.Affenpinscher", "002.Afghan_hound")
PICTURE = "wp-content/uploads/2017/11/Carolina-Dog.jpg"
RULES = (
    *("LossNotDecreasing", "VanishingGradient", "Overfit", "Overtraining"),
    "PoorWeightInitialization",
)
pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(which("wget") is None or which("unzip") is None, reason="no wget, unzip"),
]


def jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (48, 40), (shade, 255 - shade, shade // 2)).save(data, "JPEG")
    return data.getvalue()


def dog_images() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for part, count in (("train", 12), ("valid", 4), ("test", 4)):
            for number in range(count):
                for kind, breed in enumerate(BREEDS):
                    name = f"dogImages/{part}/{breed}/{number}.jpg"
                    archive.writestr(name, jpeg(150 * kind + 7 * number))
    return data.getvalue()


def weights() -> bytes:
    """The weights that a script loads by torch.hub, as torchvision's models do."""
    layers = {"0": (4, 3, 3, 3), "4": (10, 64)}
    data = io.BytesIO()
    state = {f"{name}.weight": torch.randn(*shape) / 8 for name, shape in layers.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in layers.items()}
    torch.save(state, data)
    return data.getvalue()


def digits(count: int) -> dict[str, bytes]:
    """MNIST's files, with fewer digits."""
    found = {}
    for part, number in (("train", count), ("t10k", 8)):
        images = struct.pack(">4I", 2051, number, 28, 28) + os.urandom(number * 784)
        labels = struct.pack(">2I", 2049, number) + bytes(n % 10 for n in range(number))
        found[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(images)
        found[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return found


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    mnist = {f"datasets/image/MNIST/{name}": data for name, data in digits(64).items()}
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        made.buckets = {
            "pytorch": Bucket(objects={"models/tiny-0a1b2c3d.pth": weights()}),
            "sagemaker-sample-files": Bucket(objects=mnist),
            "cdn-origin-etr.akc.org": Bucket(objects={PICTURE: jpeg(40)}),
        }
        yield made


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the data set."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "dogImages.zip").write_bytes(dog_images())
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/dogImages.zip"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def up(real: StandInS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloche]:
    outside = {"CLOCHE_S3_ADDRESS": real.address, "SSL_CERT_FILE": str(real.authority)}
    command = Cloche(tmp_path_factory.mktemp("notebook") / "home", free_port(), outside)
    command.up()
    yield command
    end(command)


def own_python(folder: Path) -> Path:
    """Return a user's own Python, into which a notebook may install; it has what this one has."""
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "beneath.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/python"


def outputs(cell: Any) -> str:
    """Return all text that a cell left."""
    found = []
    for output in cell.get("outputs", ()):
        found += (
            output.get("traceback", ()),
            output.get("text", ""),
            *output.get("data", {}).values(),
        )
    return "\n".join("".join(text) for text in found if isinstance(text, (str, list, tuple)))


def test_every_cell_runs(
    up: Cloche, real: StandInS3, dogs: str, tmp_path: Path, extent: Extent
) -> None:
    folder, result = tmp_path / "course", tmp_path / "result.ipynb"
    copytree(COURSE, folder)
    python = own_python(tmp_path / "own") if extent.soak else Path(sys.executable)
    variables = up.environment
    variables |= {"DOG_IMAGES": dogs, "PATH": f"{python.parent}:{variables['PATH']}"}
    command = [str(python), "run_notebook.py", "train_and_deploy.ipynb", str(result)]
    done = subprocess.run(
        [sys.executable, "-m", "cloche", "run", "--", *command, *([] if extent.soak else ["long"])],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [c for c in nbformat.read(result, as_version=4).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells)
    said = "\n".join(map(outputs, cells))
    assert "Running on Device cpu" in said and "Test set: Average loss: " in said
    assert any("image/png" in o.get("data", {}) for c in cells for o in c.outputs)
    asked = [(one.host, one.target) for one in real.seen]
    assert ("s3.amazonaws.com", f"/cdn-origin-etr.akc.org/{PICTURE}") in asked
    assert any("tiny-0a1b2c3d.pth" in target for _host, target in asked), "by a job"
    if extent.soak:
        found = statuses(cells)
        assert all(re.search(rf"'{rule}': '(No)?IssuesFound'", found) for rule in RULES), found
        assert "rank 0 of 2: 64 digits, the ranks agree" in said
        assert "rank 1 of 2: 64 digits, the ranks agree" in said


def statuses(cells: list[Any]) -> str:
    """Return what the notebook prints of its rules."""
    return next(outputs(cell) for cell in cells if "rule_job_summary" in cell.source)
