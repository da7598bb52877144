"""Builds in the background: real processes, venv and pip, from a folder of wheels."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cloche.core.config import Home
from cloche.environments import background
from cloche.environments.background import Building, Failed, Files, wanted
from cloche.environments.ready import Ready, folder_of
from cloche.environments.table import Framework
from cloche.testing.engine_lab import wait_until
from cloche.testing.wheel import write_wheel

TINY = Framework("tiny", ("app",), ("clochetiny==1.2",), added=True)
MISSING = Framework("missing", ("app",), ("clochetiny==9",), added=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "clochetiny", "1.2", "ANSWER = 42\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    made = Home(tmp_path / "home")
    made.environments.mkdir(parents=True)
    yield made
    background.stop(made)
    wait_until(lambda: not background.under_way(made))


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Keep every build waiting."""
    with (home.environments / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def ended(framework: Framework, home: Home, since_ms: int) -> Ready | Failed:
    """Return how the build ended."""

    def look() -> Ready | Failed | None:
        found = wanted(framework, home, since_ms)
        return None if isinstance(found, Building) else found

    return wait_until(look)


def waiting(framework: Framework, home: Home) -> bool:
    log = Files(folder_of(framework, home)).log
    return log.exists() and "Waiting for another build to end" in log.read_text()


def builder(framework: Framework, home: Home) -> psutil.Process:
    """Return the one process that builds the environment."""
    folder = str(home.path)
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"cloche.builder", folder, framework.name} <= set(process.info["cmdline"] or ())
    ]
    assert len(found) == 1
    return found[0]


def test_many_ask_and_it_is_built_once(home: Home) -> None:
    since_ms = now_ms()
    with held(home), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _n: wanted(TINY, home, since_ms), range(16)))
        log = Files(folder_of(TINY, home)).log
        assert set(found) == {Building(log)}
        wait_until(lambda: waiting(TINY, home))
        builder(TINY, home)
        assert background.under_way(home) == ["tiny"] and background.is_under_way(TINY, home)
    made = ended(TINY, home, since_ms)
    assert isinstance(made, Ready) and dict(made.versions) == {"clochetiny": "1.2"}
    wait_until(lambda: not background.under_way(home))
    stamps = [int(line.split(" ", 1)[0]) for line in log.read_text().splitlines()]
    texts = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert stamps == sorted(set(stamps)) and stamps[0] >= since_ms
    assert texts[0] == "Building the environment tiny: clochetiny==1.2"
    assert texts[-1] == "Successfully installed clochetiny-1.2"


def test_failure_is_of_those_who_waited(home: Home) -> None:
    since_ms = now_ms()
    failed = ended(MISSING, home, since_ms)
    assert isinstance(failed, Failed) and failed.reason == "pip ended with exit code 1"
    assert failed.lines[-1] == "ERROR: No matching distribution found for clochetiny==9"
    wait_until(lambda: not background.under_way(home))
    assert wanted(MISSING, home, since_ms) == failed == background.failure(MISSING, home)
    later_ms = failed.at_ms + 1
    with held(home):
        assert isinstance(wanted(MISSING, home, later_ms), Building)  # tried again
        assert background.failure(MISSING, home) is None
    again = ended(MISSING, home, later_ms)
    assert isinstance(again, Failed) and again.at_ms >= later_ms
    assert not folder_of(MISSING, home).exists()


def test_killed_is_started_again_three_times(home: Home) -> None:
    since_ms = now_ms()
    with held(home):
        for _ in range(background.STARTS):
            assert isinstance(wanted(TINY, home, since_ms), Building)
            os.kill(builder(TINY, home).pid, signal.SIGKILL)
            wait_until(lambda: not background.under_way(home))
        failed = wanted(TINY, home, since_ms)
        log = Files(folder_of(TINY, home)).log
        assert isinstance(failed, Failed)
        assert failed.reason == f"its process was killed 3 times; see {log}"
    assert isinstance(ended(TINY, home, failed.at_ms + 1), Ready)  # who asks later begins anew


def test_stopped_leaves_nothing(home: Home) -> None:
    since_ms = now_ms()
    wanted(TINY, home, since_ms)
    wait_until(lambda: folder_of(TINY, home).exists())
    background.stop(home)
    wait_until(lambda: not background.under_way(home))
    assert not folder_of(TINY, home).exists()
    assert background.failure(TINY, home) is None
    assert isinstance(ended(TINY, home, since_ms), Ready)  # and whoever still waits has it built
