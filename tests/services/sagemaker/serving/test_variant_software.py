"""A model's code/requirements.txt: installed once for all replicas, through boto3."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from package_index import HOST, Index
from serving_client import Serving

from cloche.engine.local.probe import probe
from cloche.testing import platform as platforms

pytestmark = pytest.mark.skipif(probe().isolation != "full", reason="layers need sandboxes")
CODE = """
import os
import clochetestwheel
def model_fn(model_dir):
    return clochetestwheel.VALUE
def transform_fn(model, body, content_type, accept):
    return '[%d, %d]' % (model, os.path.exists(clochetestwheel.__file__))
"""
WANTS = {"code/requirements.txt": "clochetestwheel\n"}
ADDS = "requirements.txt adds to the environment, since "


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path) as index:
        yield index


class Home:
    """A platform that may be started again on the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more: dict[str, Any] = {
            "port": platforms.free_port(),
            "allow_egress": (f"{HOST}/32",),
        }

    def start(self) -> platforms.Platform:
        return platforms.start(self.folder, **self.more)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def serving(home: Home) -> Iterator[Serving]:
    with home.start() as platform:
        made = Serving(platform)
        made.s3.create_bucket(Bucket="models")
        yield made


def model(serving: Serving, index: Index, name: str, **files: str) -> str:
    """Make a model whose code asks for the package, from the index."""
    data = serving.put_model(name, CODE, **(WANTS | files))
    serving.create_model(name, ModelDataUrl=data, Environment=index.settings)
    return name


def logs(serving: Serving, endpoint: str) -> list[list[str]]:
    """Return the lines of each replica's log stream."""
    client, group = serving.platform.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"
    streams = client.describe_log_streams(logGroupName=group)["logStreams"]
    return [
        [event["message"] for event in client.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
        )["events"]]
        for stream in streams
    ]  # fmt: skip


def test_installed_once_for_all_replicas(serving: Serving, index: Index) -> None:
    """Two replicas, and one that comes when the model is deployed once more: pip ran once."""
    model(serving, index, "wants")
    assert serving.deploy("wants", "wants", count=2)["EndpointStatus"] == "InService"
    assert serving.invoke("wants", 0) == [42, 1]
    seen = logs(serving, "wants")
    assert len(seen) == 2
    for lines in seen:
        assert lines[0].startswith("Cloche runs pytorch: Python ")
        assert lines[1].startswith(ADDS) and lines[1].endswith(": clochetestwheel-1.0")
        assert "The dependencies from requirements.txt are installed." in lines
    again = serving.config("wants")
    serving.sagemaker.update_endpoint(EndpointName="wants", EndpointConfigName=again)
    assert serving.settled("wants")["EndpointStatus"] == "InService"
    assert serving.invoke("wants", 0) == [42, 1]
    assert index.downloads == 1


def test_it_waits_creating(serving: Serving, index: Index) -> None:
    """While pip runs the endpoint is Creating; it may be deleted then."""
    index.open.clear()
    config = serving.config(model(serving, index, "waits"))
    serving.sagemaker.create_endpoint(EndpointName="waits", EndpointConfigName=config)
    serving.until(lambda: index.asked, bool)
    assert serving.describe("waits")["EndpointStatus"] == "Creating"
    assert serving.gangs("waits") == []
    serving.delete("waits")
    index.open.set()
    assert serving.deploy("next", "waits")["EndpointStatus"] == "InService"
    assert index.downloads == 1


def test_pip_fails(serving: Serving, index: Index) -> None:
    """The replica itself tells what pip says, and leaves no layer."""
    wants = {"code/requirements.txt": "no-such-package==1\n"}
    failed = serving.deploy("fails", model(serving, index, "fails", **wants))
    assert failed["EndpointStatus"] == "Failed"
    assert "No matching distribution found for no-such-package==1" in failed["FailureReason"]
    assert not list(serving.platform.home.layers.iterdir())


def test_the_server_dies_while_pip_runs(home: Home, index: Index) -> None:
    index.open.clear()
    with home.start() as platform:
        serving = Serving(platform)
        serving.s3.create_bucket(Bucket="models")
        config = serving.config(model(serving, index, "outlives"))
        serving.sagemaker.create_endpoint(EndpointName="outlives", EndpointConfigName=config)
        serving.until(lambda: index.asked, bool)
        platform.stop(end_gangs=False)
    index.open.set()
    with home.start() as platform:
        serving = Serving(platform)
        assert serving.settled("outlives")["EndpointStatus"] == "InService"
        assert serving.invoke("outlives", 0) == [42, 1]
        assert index.downloads == 1


def test_a_layer_in_use_is_kept(home: Home, index: Index) -> None:
    """A server that starts after a long time removes no layer that a replica runs with."""
    with home.start() as platform:
        serving = Serving(platform)
        serving.s3.create_bucket(Bucket="models")
        serving.deploy("stays", model(serving, index, "stays"))
        platform.stop(end_gangs=False)
    (layer,) = (home.folder / "layers").iterdir()
    long_ago = time.time() - 60 * 86_400
    os.utime(layer, (long_ago, long_ago))
    with home.start() as platform:
        serving = Serving(platform)
        assert layer.exists()
        assert serving.invoke("stays", 0) == [42, 1]
        serving.delete("stays")
        platform.stop()
    os.utime(layer, (long_ago, long_ago))
    with home.start():
        assert not layer.exists()
