"""What files and folders are by their names: for the server, which looks at no pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SPLITS = ("train", "valid", "test")
OTHER_NAMES = {"training": "train", "validation": "valid", "val": "valid", "testing": "test"}
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def split_named(folder: str) -> str:
    """Return the split that a folder (or channel) of this name holds; "" where it tells none."""
    name = OTHER_NAMES.get(folder.lower(), folder.lower())
    return name if name in SPLITS else ""


def file_paths(root: Path) -> list[Path]:
    """Return all files below `root` but hidden ones, in order."""
    found = []
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(visible(below))
        found += [Path(folder, name) for name in sorted(visible(names))]
    return found


def pictures(root: Path) -> list[Path]:
    """Return all files below `root` that are named like pictures, in order."""
    return [path for path in file_paths(root) if path.suffix.lower() in SUFFIXES]


def visible(names: Iterable[str]) -> list[str]:
    """Return the names that do not begin with a dot."""
    return [name for name in names if not name.startswith(".")]
