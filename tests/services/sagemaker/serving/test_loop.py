"""What an endpoint makes of an engine that refuses, fails, or runs a process that hangs."""

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from serving_client import ARN, PLAIN, Serving

from cloche.engine import EngineError, GangSpec, InsufficientCapacity
from cloche.engine.local import accounts
from cloche.services.sagemaker.serving import decide
from cloche.services.sagemaker.serving.loop import EndpointLoop
from cloche.services.sagemaker.serving.record import ENDPOINT
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


def test_only_the_first_that_waits_tries_again_and_all_come_in_turn(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = serving.platform.app.engine
    real, tried, full = engine.room, list[str](), [True]

    def room(gang: GangSpec, beside: Sequence[GangSpec] = ()) -> InsufficientCapacity | None:
        tried.append(gang.name)
        return InsufficientCapacity(f"{gang.name} all taken") if full else real(gang, beside)

    monkeypatch.setattr(engine, "room", room)
    names = ["one", "two", "three"]
    gangs: list[str] = []
    for name in names:
        config = serving.config(serving.model(name))
        serving.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        gangs.extend(serving.until(lambda: set(tried).difference(gangs), bool))
    serving.until(lambda: tried.count(gangs[0]), lambda count: count >= 8)  # once a second
    assert all(tried.count(gang) <= 2 for gang in gangs[1:])
    full.clear()
    for name in names:
        assert serving.settled(name)["EndpointStatus"] == "InService"
    for name in names:
        serving.delete(name)


def test_want_of_capacity_is_told_and_ends(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "BACKGROUND_PARTS", 1)  # one replica takes all there is
    roomy = accounts.Accounts(accounts.Resources(cpus=2, memory_mib=4000))
    monkeypatch.setattr(serving.platform.app.engine, "accounts", roomy)
    assert serving.deploy("first", serving.model("first"))["EndpointStatus"] == "InService"
    serving.sagemaker.create_endpoint(
        EndpointName="second", EndpointConfigName=serving.config(serving.model("second"))
    )

    def status() -> Any:
        pending = serving.describe("second").get("PendingDeploymentSummary", {})
        return [v.get("VariantStatus") for v in pending.get("ProductionVariants", [])]

    [[told]] = serving.until(status, lambda found: any(found))
    lacking = "ml.m5.large needs 4000 MiB; 0 of 4000 MiB are free; held by endpoint first"
    assert told["Status"] == "Creating"
    assert told["StatusMessage"] == f"Waiting for capacity: {lacking}"
    assert serving.describe("second")["EndpointStatus"] == "Creating"
    monkeypatch.setattr(decide, "CAPACITY_WAIT_S", 0.0)
    described = serving.settled("second")
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"] == (
        "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity "
        f"error. {lacking}"
    )
    monkeypatch.undo()
    for name in ("first", "second"):
        serving.delete(name)


def test_a_death_is_told_not_polled(serving: Serving) -> None:
    serving.deploy("mortal", serving.model("mortal"))
    [before] = serving.gangs("mortal")
    app = serving.platform.app
    queue, arn = app.reconciler.drivers[ENDPOINT].queue, f"{ARN}:endpoint/mortal"
    # It is left alone for long: nothing looks at it meanwhile.
    serving.until(lambda: queue.time_of(arn) - serving.platform.loop.time(), lambda s: 12 < s < 60)
    state = json.loads((app.engine.folder(before) / "state.json").read_text())
    os.kill(state["processes"]["model"]["pid"], signal.SIGKILL)
    started = time.monotonic()
    serving.until(lambda: serving.gangs("mortal"), lambda now: before not in now)
    assert time.monotonic() - started < 10
    serving.delete("mortal")


def test_replica_that_hangs_is_replaced(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = replace(decide.REPLACEMENT, unhealthy_s=1.0)
    monkeypatch.setattr(decide, "REPLACEMENT", impatient)
    monkeypatch.setattr(decide, "CALM_PAUSE_S", 0.5)
    endpoints = serving.platform.app.reconciler.drivers[ENDPOINT].loop
    assert isinstance(endpoints, EndpointLoop)
    monkeypatch.setattr(endpoints.pings, "pace", replace(endpoints.pings.pace, calm_pause_s=0.5))
    serving.deploy("hanging", serving.model("hanging", HANGS))
    [before] = serving.gangs("hanging")
    serving.invoke("hanging", "hang")
    serving.until(lambda: serving.gangs("hanging"), lambda now: now[0] != before)
    assert serving.invoke("hanging", 1) == ["hanging", 1]  # waits for the new one
    assert serving.describe("hanging")["EndpointStatus"] == "InService"
