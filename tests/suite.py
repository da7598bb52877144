"""How the suite runs: long files first, news while it is quiet, no skips that nobody expects."""

import os
import threading
import time
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

# The files that take longest, longest first: one of them begun last would be waited for alone.
LONG = (
    "tests/tour/test_tour.py",
    "tests/services/sagemaker/training/test_image_wait.py",
    "tests/services/sagemaker/training/test_sdk.py",
    "tests/system/test_kill.py",
    "tests/environments/test_background.py",
    "tests/cli/test_restart.py",
    "tests/attacks/test_folders.py",
    "tests/system/test_kill_ledger.py",
    "tests/services/sagemaker/training/debugger/test_debugger.py",
    "tests/attacks/test_packages.py",
    "tests/services/sagemaker/training/test_example.py",
    "tests/services/sagemaker/training/test_requirements.py",
    "tests/cli/test_readme.py",
    "tests/sdks/test_sdks.py",
)
# What CI does not have: other SDKs' own venvs, environments that take minutes to build, and, where
# its checkout has no history, the release before this one.
SKIPPED_IN_CI = (
    "tests/environments/test_environment_images.py",
    "tests/sdks/test_sdks.py",
    "tests/services/sagemaker/software/test_images_on_demand.py",
    "tests/system/test_upgrade.py",
)
QUIET_S = 2.0


def long_first(items: list[pytest.Item]) -> None:
    """Bring the long files' tests to the front; all else keeps its order."""
    root = Path(__file__).parents[1]
    places = {root / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


class Progress:
    """Says what runs and for how long, whenever nothing was reported for two seconds."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self.reporter = reporter
        self.running: dict[str, float] = {}
        self.heard = time.monotonic()
        self.before = ""  # a new line, where dots precede
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def pytest_sessionstart(self) -> None:
        self.thread.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        self.before = "\n"
        self.heard = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(max(0.1, self.heard + QUIET_S - time.monotonic())):
            now = time.monotonic()
            if now - self.heard < QUIET_S:
                continue
            self.heard = now
            running = [
                f"{node.rpartition('/')[2]} ({now - since:.0f} s)"
                for node, since in tuple(self.running.items())
            ]
            self.reporter.write_line(self.before + "   … " + (", ".join(running) or "starting"))
            self.before = ""
            self.reporter.flush()


class Skips:
    """With CI=true, a skip that is not among SKIPPED_IN_CI fails the run."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self.reporter = reporter

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        skipped = {report.nodeid for report in self.reporter.stats.get("skipped", ())}
        surprising = sorted(node for node in skipped if not node.startswith(SKIPPED_IN_CI))
        if surprising and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for node in surprising:
            self.reporter.write_line(f"\nSkipped, which CI does not allow: {node}", red=True)


def watch(config: pytest.Config) -> None:
    """Register both where results come together, which is not in a worker."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Progress(reporter), "progress")
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(Skips(reporter), "skips")
