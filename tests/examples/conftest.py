"""The example project, as its own scripts see it, and small pictures for it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw

EXAMPLE = Path(__file__).parents[2] / "examples" / "dog_breeds"


@pytest.fixture(scope="session")
def example() -> Path:
    return EXAMPLE


@pytest.fixture(scope="session")
def on_path() -> Iterator[None]:
    """The example's folder, where its scripts find each other."""
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in ("hpo", "cluster", "features", "inference", "network", "pictures"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def inference(on_path: None) -> ModuleType:
    """The serving script, imported as a model server imports it."""
    return importlib.import_module("inference")


@pytest.fixture(scope="session")
def hpo(on_path: None) -> ModuleType:
    """The training script, as a module."""
    return importlib.import_module("hpo")


def draw(shape: str, shade: int) -> Image.Image:
    image = Image.new("RGB", (40, 40), (250, 250 - shade, 240))
    pen = ImageDraw.Draw(image)
    box = (8 + shade % 5, 8, 30, 30 - shade % 7)
    if shape == "disc":
        pen.ellipse(box, fill=(200, shade, 20))
    else:
        pen.rectangle(box, outline=(20, shade, 200), width=3)
    return image


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes that are easy to tell apart, of odd sizes."""
    root = tmp_path_factory.mktemp("shapes")
    for part, count in (("train", 20), ("valid", 5), ("test", 7)):
        for shape in ("disc", "frame"):
            folder = root / part / shape
            folder.mkdir(parents=True)
            for number in range(count):
                draw(shape, number * 7 % 90).save(folder / f"{number}.png")
    return root
