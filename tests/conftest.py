"""What all tests share."""

from collections.abc import Iterator

import pytest

from cloche.testing.platform import Platform, start


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A whole platform, one for a module's tests."""
    with start(tmp_path_factory.mktemp("home")) as running:
        yield running
