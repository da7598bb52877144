"""Layers: what a requirements.txt adds to an environment, installed once for all jobs of a role.

pip runs in a sandbox of its own, with nothing but the environment and the file, and what it changes
there is the layer: code that nobody vouches for, seen in sandboxes of that role and nowhere else.
It lies in `home/layers/<digest>/`: requirements.txt, what changed, and layer.json,
written last, by a rename; a folder without that is what is left of an installation that failed or
was cut off. Jobs see the environment with the layer over it (`engine.Mount.layers`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cloche.core import executors
from cloche.core.atomic import write_json
from cloche.core.beneath import remove as remove_tree
from cloche.core.clock import Clock
from cloche.core.config import Config
from cloche.core.identity import GangDoors
from cloche.core.trees import clear_away
from cloche.core.typed import Record, decode, encode
from cloche.engine import Engine, EngineError, GangSpec, Mount, ProcessSpec, Seen
from cloche.services.sagemaker.gangs import LAYER, Gangs
from cloche.services.sagemaker.software.instance import base_environment, base_mounts
from cloche.services.sagemaker.software.requirements import NAME, Wanted

HOST = "pip"
INSIDE = "/opt/cloche/requirements.txt"
MANIFEST = "layer.json"
INSTALLS_WITHIN_S = 1800.0
LOOK_S = 60.0  # between two looks at pip, whose end wakes who asked
UNUSED = timedelta(days=30)  # then it is removed; no training job may run so long (28 days)
MEMORY_MIB = 1024
LAST_WORDS = 64 << 10  # bytes of what pip said, in which it says what it installed
MOST_NAMED = 200  # distributions that are named in logs


class LayerManifest(Record, frozen=True, kw_only=True):
    """What an installation leaves in its folder, last of all."""

    installed: tuple[str, ...]  # as pip says it: NAME-VERSION
    built: str  # ISO 8601


@dataclass(frozen=True, slots=True)
class Layer:
    """Installed requirements. `folder` None: the environment had them all."""

    name: str  # the digest of what was asked for
    folder: Path | None
    requirements: Path
    installed: tuple[str, ...]  # as pip says it: NAME-VERSION
    built: str  # ISO 8601

    @property
    def description(self) -> str:
        """Return a sentence for the log."""
        what = " ".join(self.installed) or "nothing, it had all of it"
        return f"{NAME} adds to the environment, since {self.built}: {what}"


@dataclass(frozen=True, slots=True)
class Installing:
    """pip is at it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Whose job or replica wants a layer, and what has it looked at when pip has ended."""

    account: str
    region: str
    role_arn: str
    arn: str
    wake: Callable[[str], None]


@dataclass
class Layers:
    """The layers of a home folder. Who asks is woken when pip has ended, and asks again."""

    engine: Engine
    gangs: Gangs
    doors: GangDoors
    config: Config
    clock: Clock
    failed: set[str] = field(default_factory=set)
    asking: dict[str, dict[str, Asking]] = field(default_factory=dict)  # by layer, by ARN
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self, wanted: Wanted, by: Asking, *, again: bool) -> Layer | Installing | None:
        """Return a layer, installing it where it is not there; None: it can't be had.

        again: the asker was told Installing before, so that a failure is his, too.
        """
        async with self.lock:
            name = wanted.digest
            layer = await executors.BUILDS.run(self.ready, name)
            if layer is not None:
                return layer
            # Before the look: the end of pip may come while it is made.
            self.asking.setdefault(name, {})[by.arn] = by
            self.gangs.expect(gang_of(name), name, self.ended)
            seen = await executors.ENGINE.run(self.engine.see, gang_of(name))
            if seen is None:
                if again and name in self.failed:
                    return None
                self.failed.discard(name)
                try:
                    await executors.BUILDS.run(self.install, wanted)
                except EngineError:
                    self.failed.add(name)
                    return None
            elif seen[HOST].state != "running":
                await self.doors.close(gang_of(name))
                return await executors.BUILDS.run(self.settle, name, seen[HOST])
            await self.doors.open(
                gang_of(name), account=by.account, region=by.region, role_arn=by.role_arn
            )
            return Installing()

    def ended(self, name: str) -> None:
        """Wake who asked for a layer, as pip has ended. For the event loop."""
        self.gangs.forget(gang_of(name))
        for by in self.asking.pop(name, {}).values():
            by.wake(by.arn)

    def ready(self, name: str) -> Layer | None:
        """Return a layer that is whole; BadRecord when its manifest is damaged."""
        folder = self.config.home.layers / name
        path = folder / MANIFEST
        try:
            kept = decode(LayerManifest, json.loads(path.read_text()), str(path))
            os.utime(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        changes = folder if kept.installed else None
        return Layer(name, changes, folder / NAME, kept.installed, kept.built)

    def install(self, wanted: Wanted) -> None:
        """Start pip; EngineError when it can't be."""
        folder = self.config.home.layers / wanted.digest
        remove_tree(folder)
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(wanted.text)
        self.engine.launch(gang(wanted, folder, self.config, self.engine))

    def settle(self, name: str, seen: Seen) -> Layer | None:
        """Make what pip did a layer, or clear it away."""
        folder = self.config.home.layers / name
        self.engine.collect(gang_of(name), folder, own=True)
        said = self.engine.read_log(gang_of(name), HOST, -LAST_WORDS, LAST_WORDS)
        self.engine.forget(gang_of(name))
        if seen.state != "exited" or seen.exit_code != 0:
            remove_tree(folder)
            self.failed.add(name)
            return None
        built = self.clock.now().isoformat(timespec="seconds")
        names = tuple(installed(said.decode("utf-8", "replace")))
        made = LayerManifest(installed=names, built=built)
        write_json(folder / MANIFEST, encode(made))
        return self.ready(name)

    def clear(self, used: Set[str]) -> None:
        """Settle what ended meanwhile; remove what was cut off, or not used for long.

        For the start of the server. used: names of layers that something may run with now.
        """
        if not self.config.home.layers.exists():
            return
        oldest = (self.clock.now() - UNUSED).timestamp()
        for folder in self.config.home.layers.iterdir():
            seen = self.engine.see(gang_of(folder.name))
            if seen is None:
                whole = (folder / MANIFEST).exists()
                old = folder.stat().st_mtime < oldest and folder.name not in used
                if not whole or old:
                    clear_away([folder])
            elif seen[HOST].state != "running":
                self.settle(folder.name, seen[HOST])


@dataclass
class Asker:
    """Somebody who wants requirements, and asks until they are there or can't be had."""

    wanted: Wanted | None  # None: nothing that a layer may hold
    installing: bool = False
    layer: Layer | None = None  # found by the last look

    async def look(self, layers: Layers, by: Asking) -> Layer | Installing | None:
        """Return the layer, if by now it is there; None: what starts runs pip, if need be."""
        if self.wanted is None:
            return None
        found = await layers.find(self.wanted, by, again=self.installing)
        self.installing = isinstance(found, Installing)
        self.layer = None if isinstance(found, Installing) else found
        if found is None:
            self.wanted = None
        return found


def gang_of(name: str) -> str:
    """Return the name of the gang that installs a layer."""
    return f"{LAYER}{name}"


def gang(wanted: Wanted, folder: Path, config: Config, engine: Engine) -> GangSpec:
    """Return pip's gang."""
    first, *others = base_mounts(wanted.environment, config, engine)
    changes = Mount(first.source, first.target, "overlay", changes=engine.stage(folder))
    pip = (str(wanted.environment.python), "-m", "pip", "install", "--progress-bar", "off")
    process = ProcessSpec(
        name=HOST,
        argv=(*pip, "--no-input", "-r", INSIDE),
        env=base_environment(wanted.environment, config, (HOST,), isolated=False)
        | dict(wanted.settings),
        mounts=(changes, *others, Mount(engine.stage(folder / NAME), INSIDE)),
        memory_mib=MEMORY_MIB,
    )
    return GangSpec(
        name=gang_of(wanted.digest),
        processes=(process,),
        max_run_s=INSTALLS_WITHIN_S,
        background=True,
    )


def installed(log: str) -> list[str]:
    """Return what pip says it installed, as NAME-VERSION."""
    said = "Successfully installed "
    lines = [line.partition(said)[2] for line in log.splitlines() if said in line]
    return lines[-1].split()[:MOST_NAMED] if lines else []


def layered(mounts: tuple[Mount, ...], layer: Layer | None, engine: Engine) -> tuple[Mount, ...]:
    """Return an instance's mounts with a layer over its environment, the first of them."""
    if layer is None:
        return mounts
    first, *others = mounts
    layers = () if layer.folder is None else (engine.stage(layer.folder),)
    over = Mount(first.source, first.target, first.mode, layers=layers)
    return (over, *others, Mount(engine.stage(layer.requirements), INSIDE))
