"""What all tests share."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import suite

from cloche.core.trees import clear_away
from cloche.engine.local.supervisor import mounts
from cloche.testing.extent import Extent
from cloche.testing.platform import Platform, start

PASSED = pytest.StashKey[bool]()
Reporting = Generator[None, pytest.TestReport, pytest.TestReport]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Reporting:
    """Note how a test ended."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that is kept where the test fails: a home folder holds 64 MiB in reserve.

    Pytest's own removal can't take folders that are a thousand deep.
    """
    yield tmp_path
    if request.node.stash.get(PASSED, False):
        clear_away([tmp_path])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A whole platform, one for a module's tests."""
    with start(tmp_path_factory.mktemp("home")) as running:
        yield running


SOAK = os.environ.get("CLOCHE_SOAK") == "1"


@pytest.fixture(scope="session")
def extent() -> Extent:
    """The extent of long checks; $CLOCHE_SEED chooses another sample."""
    return Extent(soak=SOAK, seed=int(os.environ.get("CLOCHE_SEED", "20261127")))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    suite.watch(config)
    mounts.own()  # as the server: its sandboxes' volumes are mounted for nobody else


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With CLOCHE_SOAK=1 (`make soak`), run only what has a greater extent then."""
    suite.long_first(items)
    if SOAK:
        short = [item for item in items if "extent" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=short)
        items[:] = [item for item in items if item not in short]
