"""Homes for the command's tests; whatever is up at the end is stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_command import Cloche, end

from cloche.testing.platform import free_port


@pytest.fixture
def cloche(tmp_path: Path) -> Iterator[Cloche]:
    """A new home folder."""
    command = Cloche(tmp_path / "home", free_port())
    yield command
    end(command)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloche]:
    """A platform that is up, one for a module's tests."""
    command = Cloche(tmp_path_factory.mktemp("up") / "home", free_port())
    command.up()
    yield command
    end(command)
