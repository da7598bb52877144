"""One S3 server for each test module, and a bucket for each test."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from s3_server import OTHER_KEY, Served, serving

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("s3")) as one:
        yield one


@pytest.fixture(scope="module")
def s3(served: Served) -> Any:
    return served.client()


@pytest.fixture(scope="module")
def stranger(served: Served) -> Any:
    """Return a client of another account."""
    return served.client(OTHER_KEY)


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{next(NUMBERS)}"
    s3.create_bucket(Bucket=name)
    return name
