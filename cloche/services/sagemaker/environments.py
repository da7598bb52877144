"""Which software stands behind an image URI: a table from repository names to environments.

Nothing is pulled: a framework image stands for an interpreter on this machine that has the
framework installed. What really runs is said in the job's log (`Environment.versions`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from cloche.core.errors import AwsError, unsupported

IMAGE = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<repository>[a-z0-9][a-z0-9._/-]*)(:(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{64})?"
)
SHOWN = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "pandas", "boto3")


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter and what is installed beside it.

    `prefixes` are the folders that a sandbox needs to see, at the same paths: the virtual
    environment first, then the base interpreter it was made from.
    """

    name: str
    python: Path
    prefixes: tuple[Path, ...]
    versions: Mapping[str, str]

    @property
    def description(self) -> str:
        """Return `pytorch: Python 3.11.2, torch 2.9.0, …`."""
        parts = [f"Python {python_version()}", *(f"{k} {v}" for k, v in self.versions.items())]
        return f"{self.name}: {', '.join(parts)}"


def environment_for(image_uri: str) -> Environment:
    """Return what runs in place of the image; an AwsError names an image that nothing stands for.

    Any version (tag) of a known repository maps to the version that is installed.
    """
    match = IMAGE.fullmatch(image_uri)
    make = REPOSITORIES.get(match["repository"]) if match else None
    if make is None:
        known = ", ".join(sorted(REPOSITORIES))
        raise unsupported(f"the image {image_uri}", f"Known repositories: {known}.")
    return make()


@cache
def pytorch() -> Environment:
    """Return the virtual environment that Cloche itself runs in, if torch is installed there."""
    versions = installed(SHOWN)
    if "torch" not in versions:
        raise AwsError(
            "ValidationException",
            "No PyTorch on this machine: install it beside Cloche (pip install 'cloche[pytorch]').",
        )
    return own("pytorch", versions)


def own(name: str, versions: Mapping[str, str]) -> Environment:
    """Return the interpreter that runs this very code, as an environment."""
    prefix, base = Path(sys.prefix), Path(sys.base_prefix)
    prefixes = (prefix,) if prefix == base else (prefix, base)
    return Environment(name, Path(sys.executable), prefixes, versions)


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed, without importing any."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


REPOSITORIES: Mapping[str, Callable[[], Environment]] = {
    "pytorch-training": pytorch,
    "pytorch-inference": pytorch,
}
