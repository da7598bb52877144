"""What an installation leaves in a layer's folder, as it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from cloche.core.clock import SystemClock
from cloche.core.config import Config, Home
from cloche.core.typed import BadRecord
from cloche.services.sagemaker.gangs import Gangs
from cloche.services.sagemaker.software.layers import Layers

WHOLE = {"installed": ["one-1.0"], "built": "2026-01-01T00:00:00+00:00"}


def layers(home: Path) -> Layers:
    nothing = cast(Any, None)  # reading needs neither engine nor doors
    return Layers(
        nothing, Gangs(), nothing, Config(home=Home(home), account="123456789012"), SystemClock()
    )


def write(home: Path, content: object) -> None:
    folder = home / "layers/name"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layer.json").write_text(json.dumps(content))


def test_a_layer_that_a_newer_release_wrote_is_read(tmp_path: Path) -> None:
    assert layers(tmp_path).ready("name") is None
    write(tmp_path, WHOLE | {"new": 1})
    found = layers(tmp_path).ready("name")
    assert found is not None
    assert (found.installed, found.built) == (("one-1.0",), WHOLE["built"])
    assert found.folder == tmp_path / "layers/name"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (WHOLE | {"installed": "one"}, "Expected `array`, got `str` - at `$.installed`"),
        ({"installed": []}, "Object missing required field `built`"),
    ],
)
def test_one_that_is_damaged_says_which_file(tmp_path: Path, content: object, why: str) -> None:
    write(tmp_path, content)
    with pytest.raises(BadRecord) as refused:
        layers(tmp_path).ready("name")
    assert str(refused.value) == f"{tmp_path}/layers/name/layer.json: {why}"
