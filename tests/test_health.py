"""What health and status say of a loop that can't go on: here, as one of its records is damaged."""

import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloche.cli.output import out
from cloche.cli.status import status
from cloche.records.store import Resource
from cloche.testing.platform import ACCOUNT, Platform, start

WITHIN_S = 20.0
KIND = "warm-pool"


def health(platform: Platform) -> dict[str, Any]:
    with urllib.request.urlopen(f"{platform.address}/_cloche/health", timeout=10) as answer:
        told: dict[str, Any] = json.loads(answer.read())
    return told


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def write(database: Path, document: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        changed = connection.execute(
            "UPDATE resource SET document = ? WHERE kind = ?", (document, KIND)
        )
    assert changed.rowcount == 1
    connection.close()


def shown(platform: Platform) -> str:
    with out.capture() as captured:
        status(platform.home)
    return " ".join(captured.get().split())


def test_a_loop_that_cannot_go_on_is_named_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path / "home") as platform:
        assert health(platform)["status"] == "ok"
        assert "failing" not in shown(platform)
        now = platform.app.clock.now()
        row = Resource(
            account=ACCOUNT,
            region="us-east-1",
            kind=KIND,
            name="kept",
            arn="kept",
            status="InUse",  # nothing is to be done about it
            created=now,
            modified=now,
        )
        platform.call(platform.app.store.insert(row))
    database = platform.home.database
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE resource SET status = 'Available' WHERE arn = 'kept'")
    connection.close()
    write(database, "{")
    with start(tmp_path / "home") as platform:
        until(lambda: health(platform)["status"] == "failing")
        assert health(platform)["failing_loops"] == [KIND]
        assert (
            "failing the loop warm-pool: records can't be read, which is tried again: "
            "BadRecord: kept (document): Expecting property name enclosed in double quotes: line 1 "
            "column 2 (char 1); if it stays so, run cloche down, cloche up; see the server's log"
        ) in shown(platform)
        assert "kept: step failed, again in 0.5 s" in caplog.messages
        write(database, '{"TrainingJobArn": "nobody"}')
        until(lambda: health(platform)["status"] == "ok")
        until(lambda: platform.app.store.find("kept") is None)  # the loop does its work
        assert "failing" not in shown(platform)
