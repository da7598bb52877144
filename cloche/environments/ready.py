"""Environments that are ready: Cloche's own Python, or a virtual environment that was built.

A built one is `home/environments/<name>-<digest>/`: a virtual environment, which can't be moved
since it knows its path. So it is whole once `environment.json` is in it, the last thing a build
writes, by a rename; a folder without it is the rest of a build that was killed.
"""

import hashlib
import json
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

import cloche.toolkits
from cloche.core.config import Home
from cloche.core.typed import BadRecord, Record, decode
from cloche.environments.image_contents import distribution
from cloche.environments.table import Framework, base_of

MANIFEST = "environment.json"
MAIN = 8  # packages that a line of a log or a table names
TOOLKITS = Path(cloche.toolkits.__path__[0])


class Manifest(Record, frozen=True, kw_only=True):
    """What the build of an environment leaves in its folder, last of all."""

    versions: Mapping[str, str]  # of every distribution
    built: str  # ISO 8601
    name: str = ""
    packages: tuple[str, ...] = ()
    seconds: float = 0.0  # that the build took


@dataclass(frozen=True, slots=True)
class Ready:
    """An interpreter with packages beside it."""

    python: Path
    prefixes: tuple[Path, ...]  # what a sandbox must show: the environment, then its base
    versions: Mapping[str, str]  # of the framework's packages
    built: str | None  # when (ISO 8601); None: it is Cloche's own


def ready(framework: Framework, home: Home) -> Ready | None:
    """Return what runs in place of the framework's images; None when it must be built first.

    One that was built goes before Cloche's own. Reads a small file; imports nothing.
    """
    folder = folder_of(framework, home)
    kept = manifest(folder)
    python = folder / "bin/python"
    if kept is None or not python.exists():  # its base interpreter may be gone
        return own(framework)
    versions, base = shown(framework, kept.versions), base_of(framework)
    if base is None:
        return Ready(python, (folder, Path(sys.base_prefix)), versions, kept.built)
    if (under := ready(base, home)) is None:
        return None
    beneath = {name: number for name, number in under.versions.items() if name not in versions}
    return Ready(python, (folder, *under.prefixes), {**versions, **beneath}, kept.built)


def own(framework: Framework) -> Ready | None:
    """Return the Python that runs this very code, when it has enough for the framework."""
    names = [*map(distribution, framework.packages), *framework.enough]
    site = Path(sysconfig.get_path("purelib"))
    versions = installed(tuple(dict.fromkeys(names)), site.stat().st_mtime_ns)
    if not framework.enough or not all(has(framework, name, versions) for name in framework.enough):
        return None
    prefix, base = Path(sys.prefix), Path(sys.base_prefix)
    prefixes = (prefix,) if prefix == base else (prefix, base)
    return Ready(Path(sys.executable), prefixes, versions, None)


def has(framework: Framework, name: str, versions: Mapping[str, str]) -> bool:
    """Return whether a distribution is there in a version that the framework takes."""
    asked = (Requirement(each) for each in framework.packages if distribution(each) == name)
    return name in versions and all(
        each.specifier.contains(versions[name], prereleases=True) for each in asked
    )


def folder_of(framework: Framework, home: Home) -> Path:
    """Return where its environment is built: other packages or another Python, another folder."""
    base = base_of(framework)
    under = sys.base_prefix if base is None else str(prefix_of(base, home))
    stands_on = [sorted(framework.packages), under, sys.implementation.cache_tag]
    if framework.toolkits:
        stands_on.append(toolkits())
    digest = hashlib.sha256(json.dumps(stands_on).encode()).hexdigest()
    return home.environments / f"{framework.name}-{digest[:10]}"


@cache
def toolkits() -> str:
    """Return a digest of the toolkits that come with Cloche: other ones, another environment."""
    digest = hashlib.sha256()
    for path in sorted(TOOLKITS.rglob("*.py")):
        digest.update(f"{path.relative_to(TOOLKITS)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def prefix_of(framework: Framework, home: Home) -> Path:
    """Return where an environment is, or will be."""
    found = ready(framework, home)
    return folder_of(framework, home) if found is None else found.prefixes[0]


def manifest(folder: Path) -> Manifest | None:
    """Return what the build of a folder wrote; None when it is not whole, or damaged."""
    path = folder / MANIFEST
    try:
        return decode(Manifest, json.loads(path.read_text()), str(path))
    except (FileNotFoundError, NotADirectoryError, BadRecord, ValueError):
        return None


def shown(framework: Framework, versions: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of the packages that the table names."""
    found = {normal(name): number for name, number in versions.items()}
    names = [distribution(package) for package in framework.packages]
    return {name: found[normal(name)] for name in names if normal(name) in found}


def first(packages: Sequence[str]) -> list[str]:
    """Return the packages that a line names: the first ones, and how many there are besides."""
    more = len(packages) - MAIN
    return [*packages[:MAIN], *([f"and {more} more packages"] if more > 0 else [])]


@cache
def installed(names: tuple[str, ...], _changed_ns: int) -> Mapping[str, str]:
    """Return the versions of those distributions that are installed beside this code.

    Takes 2 ms each; `_changed_ns`, the folder's time of change, makes a pip install show.
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares them."""
    return name.lower().replace("_", "-").replace(".", "-")
