"""The one place that wires the platform."""

from pathlib import Path

import pytest

from cloche import app
from cloche.core import config
from cloche.core.config import Config
from cloche.engine.local.engine import LocalEngine
from cloche.testing.platform import start


def test_every_engine_that_up_takes_is_there() -> None:
    assert tuple(app.ENGINES) == config.ENGINES


def test_the_platform_runs_the_engine_that_up_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(of: Config) -> LocalEngine:
        return LocalEngine(of.home.path / "other", port=of.port)

    monkeypatch.setattr(app, "ENGINES", {**app.ENGINES, "other": other})
    with start(tmp_path / "home", engine="other") as platform:
        assert platform.app.engine.root == tmp_path / "home/other"
