"""What a fork server imported, to be compared with what a sandbox shows in the same folders.

Part of `fork_server.py`, which imports it by its bare name. Standard library only, Python 3.9 and
later.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from typing import Any

LIMIT = 1 << 20  # bytes of a distribution's entry points that are looked through


class Imports:
    """What imports found here and what they looked for in vain, to tell in a sandbox whether they
    would go the same way there, where a layer may lie over the environment.

    The last finder of `sys.meta_path`: it hears of what no other has found.
    """

    def __init__(self) -> None:
        self.missed: set[tuple[str, tuple[str, ...] | None]] = set()
        self.distributions: set[str] = set()  # that packages asked for (importlib.metadata)
        self.stats: dict[str, tuple[int, int]] = {}  # of modules' files and their folders
        self.sites: dict[str, set[str]] = {}  # folders that sys.path names -> what is in them

    def find_spec(self, name: str, path: Sequence[str] | None = None, _target: Any = None) -> None:
        """Note that there is no such module."""
        self.missed.add((name, None if path is None else tuple(path)))

    def find_distributions(self, context: Any) -> Iterator[Any]:
        """Note that a package asked for a distribution; there is none of our own."""
        self.distributions.add(normal(context.name or ""))
        return iter(())

    def note(self) -> None:
        """Note how all looks that was imported until now."""
        self.sites = {site: set(os.listdir(site)) for site in sys.path if ours(site)}
        for module in list(sys.modules.values()):
            file = getattr(getattr(module, "__spec__", None), "origin", None)
            if isinstance(file, str) and ours(file):
                for path in {file, os.path.dirname(file)}.difference(self.sites, self.stats):
                    self.stats[path] = looks(path)

    def same(self) -> bool:
        """Return whether what is seen now, in a sandbox, only adds what no import asked for."""
        importlib.invalidate_caches()
        loaded = {name.partition(".")[0] for name in sys.modules}
        for site, before in self.sites.items():
            now = set(os.listdir(site))
            added = now - before - {"__pycache__"}
            if before - now or any(name.partition(".")[0] in loaded for name in added):
                return False
            if any(name.endswith(".pth") or self.registers(site, name) for name in added):
                return False
        if any(looks(path) != look for path, look in self.stats.items()):
            return False
        at_start = (("sitecustomize", None), ("usercustomize", None))
        missed = self.missed.union(each for each in at_start if each[0] not in loaded)
        return all(PathFinder.find_spec(name, path) is None for name, path in missed)

    def registers(self, site: str, name: str) -> bool:
        """Return whether a distribution that was added is one that a package asked for, or offers
        itself to others by entry points (commands are none).
        """
        distribution, kind = os.path.splitext(name)
        if kind not in (".dist-info", ".egg-info"):
            return False
        if normal(distribution.partition("-")[0]) in self.distributions:
            return True
        try:
            with open(os.path.join(site, name, "entry_points.txt"), errors="replace") as file:
                groups = set(re.findall(r"^\s*\[([^]]*)\]", file.read(LIMIT), re.MULTILINE))
        except OSError:
            return False
        return bool(groups - {"console_scripts", "gui_scripts"})


def ours(path: str) -> bool:
    """Return whether a path is in the environment, which a layer may lie over."""
    return path.startswith(sys.prefix + os.sep) and os.path.exists(path)


def looks(path: str) -> tuple[int, int]:
    """Return what differs when a file, or the list of a folder's files, is another."""
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return (0 if os.path.isdir(path) else status.st_size, status.st_mtime_ns)


def normal(distribution: str) -> str:
    """Return a distribution's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
