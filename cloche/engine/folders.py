"""The folders of a run directory: filled before a gang starts, removed when it is forgotten."""

import logging
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cloche.core import beneath
from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.sandbox import Machine, etc_files

logger = logging.getLogger("cloche.engine")
BOUNDLESS = beneath.Bounds(entries=1 << 40, path_bytes=0)


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
            changes = mount.changes or own / f"overlay-{number}"
            fill_overlay(mount, changes, copy=machine.isolation != "full")
    if machine.user is not None:
        hand_over(own, machine.user)
        for mount in process.mounts:
            if mount.mode == "rw":
                hand_over(mount.source, machine.user)
            if mount.changes is not None:
                hand_over(mount.changes, machine.user)


def fill_overlay(mount: Mount, changes: Path, *, copy: bool) -> None:
    """Make the folders that an overlay writes to; without overlays, a copy of the source.

    A source that is seen at its own path is not copied: an interpreter (gigabytes) runs as it is.
    """
    changes.mkdir(exist_ok=True)
    if copy and in_place(mount):
        return
    if copy:
        shutil.copytree(mount.source, changes / "upper", symlinks=True)
        return
    (changes / "upper").mkdir()
    (changes / "upper").chmod(stat.S_IMODE(mount.source.stat().st_mode))
    (changes / "work").mkdir()


def in_place(mount: Mount) -> bool:
    """Return whether the sandbox shows the source at the very path that it has outside."""
    return str(mount.source) == mount.target


def hand_over(path: Path, user: int, *, linked: bool = False) -> None:
    """Make `user` the owner of a folder and all in it, or of a file.

    What is in there may be of a hostile script: each thing is changed by its descriptor. Files
    with several names are left alone unless `linked`: they may be S3 objects, linked in.
    """

    def wanted(status: os.stat_result) -> bool:
        return linked or status.st_nlink == 1 or not stat.S_ISREG(status.st_mode)

    with beneath.folder(path.parent) as parent:
        beneath.change_owner(parent, path.name, user)
    if path.is_symlink() or not path.is_dir():
        return
    with beneath.folder(path) as root:
        for entry in beneath.walk(root, BOUNDLESS, paths=False):
            with suppress(FileNotFoundError):
                beneath.change_owner(entry.folder, entry.name, user, wanted)


def private_folders(own: Path) -> list[Path]:
    """Return a host's folders that nobody else looks into: /tmp, home, what overlays hold."""
    return [own / "tmp", own / "root", *own.glob("overlay-*")]


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, whatever its depth, names and modes; twice is fine."""
    beneath.remove(path)


def clear_away(paths: Sequence[Path]) -> None:
    """Remove folders that nobody asks for any more; what can't be is told, and left."""
    for path in paths:
        try:
            beneath.remove(path)
        except OSError as error:
            logger.warning("%s was not removed; the next start tries again: %s", path, error)
