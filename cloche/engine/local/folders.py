"""The folders of a run directory: filled before a gang starts, removed when it is forgotten."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloche.core import beneath
from cloche.core.trees import hand_over
from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.local import volumes
from cloche.engine.local.sandbox import UPPER, WORK, Machine, etc_files, path_of


def fill_host(gang: GangSpec, process: ProcessSpec, own: Path, machine: Machine) -> None:
    """Make a host's private folder, and hand it and the rw mounts to the sandbox's user."""
    own.mkdir(exist_ok=True)  # it may be a volume
    (own / "etc").mkdir()
    for name, text in etc_files(gang, process).items():
        (own / "etc" / name).write_text(text)
    (own / "root").mkdir(mode=0o700)
    (own / "tmp").mkdir()
    (own / "tmp").chmod(0o1777)
    for number, mount in enumerate(process.mounts):
        if mount.mode == "overlay":
            kept = mount.changes
            changes = own / f"overlay-{number}" if kept is None else path_of(kept)
            fill_overlay(mount, changes, copy=machine.isolation != "full")
    if machine.user is not None:
        hand_over(own, machine.user)
        for mount in process.mounts:
            if mount.mode == "rw":
                hand_over(path_of(mount.source), machine.user)
            if mount.changes is not None:
                hand_over(path_of(mount.changes), machine.user)


def fill_overlay(mount: Mount, changes: Path, *, copy: bool) -> None:
    """Make the folders that an overlay writes to; without overlays, a copy of the source.

    A source that is seen at its own path is not copied: an interpreter (gigabytes) runs as it is.
    """
    changes.mkdir(exist_ok=True)
    if copy and in_place(mount):
        return
    if copy:
        shutil.copytree(path_of(mount.source), changes / UPPER, symlinks=True)
        return
    (changes / UPPER).mkdir()
    (changes / UPPER).chmod(stat.S_IMODE(path_of(mount.source).stat().st_mode))
    (changes / WORK).mkdir()


def in_place(mount: Mount) -> bool:
    """Return whether the sandbox shows the source at the very path that it has outside."""
    return mount.source.place == mount.target


def private_folders(own: Path) -> list[Path]:
    """Return a host's folders that nobody else looks into: /tmp, home, what overlays hold."""
    return [own / "tmp", own / "root", *own.glob("overlay-*")]


def take_back(path: Path, planned: Mapping[str, Any]) -> None:
    """Make what a gang wrote the server's user's own; an overlay's changes become a layer."""
    if os.geteuid() == 0:  # any other server is the sandbox's user
        hand_over(path, 0, linked=True)
    place, sources = planned["place"], planned["sources"]
    shown = [str(path), *(f"{place}/{name}" for name, at in sources.items() if at == str(path))]
    works = {f"{each}/{WORK}" for each in shown}
    if any(not works.isdisjoint(each["argv"]) for each in planned["processes"]):
        beneath.remove(path / WORK)  # the kernel's own


def make_run(root: Path, folder: Path) -> int:
    """Make a run directory, and return its lock, held: it is never there without."""
    if folder.exists():
        volumes.discard(folder)
        beneath.remove(folder)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    lock = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(folder)
    return lock


def set_aside(root: Path, folder: Path) -> Path:
    """Rename a run directory, so that nobody knows it any more, however long it takes to go."""
    volumes.discard(folder)
    gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=root))
    with suppress(FileNotFoundError):
        folder.rename(gone / "run")
    return gone
