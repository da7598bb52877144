"""What an endpoint makes of an engine that refuses, fails, or runs a process that hangs."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from test_endpoint import PLAIN, Serving

from cloche.engine import EngineError, GangSpec, InsufficientCapacity
from cloche.services.sagemaker.loops import endpoint_plan
from cloche.testing.platform import start

HANGS = PLAIN.replace(
    'if data == "pid":',
    """if data == "hang":
        import signal, threading
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    if data == "pid":""",
)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with start(tmp_path_factory.mktemp("engine") / "home") as platform:
        made = Serving(platform)
        made.s3.create_bucket(Bucket="models")
        yield made


def test_engine_that_cannot_start_a_replica_fails_the_endpoint(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(gang: GangSpec) -> Any:
        raise EngineError(f"{gang.name}: no sandbox today")

    monkeypatch.setattr(serving.platform.app.engine, "launch", launch)
    described = serving.deploy("nowhere", serving.model("nowhere"))
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].endswith(": no sandbox today")
    monkeypatch.undo()
    serving.delete("nowhere")


def test_endpoint_waits_for_capacity(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = serving.platform.app.engine.launch, itertools.count(1)

    def launch(gang: GangSpec) -> Any:
        return InsufficientCapacity("all taken") if next(calls) < 4 else real(gang)

    monkeypatch.setattr(serving.platform.app.engine, "launch", launch)
    described = serving.deploy("patient", serving.model("patient"))
    assert described["EndpointStatus"] == "InService"
    assert next(calls) == 5
    assert serving.invoke("patient", 1) == ["patient", 1]
    serving.delete("patient")


def test_replica_that_hangs_is_replaced(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_plan, "UNHEALTHY_S", 1.0)
    serving.deploy("hanging", serving.model("hanging", HANGS))
    [before] = serving.gangs("hanging")
    serving.invoke("hanging", "hang")
    serving.until(lambda: serving.gangs("hanging"), lambda now: now[0] != before)
    assert serving.invoke("hanging", 1) == ["hanging", 1]  # waits for the new one
    assert serving.describe("hanging")["EndpointStatus"] == "InService"
