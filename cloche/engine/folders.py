"""The folders of a run directory: filled before a gang starts, removed when it is forgotten."""

import os
import shutil
import stat
from pathlib import Path

from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.sandbox import Machine, etc_files


def fill_host(gang: GangSpec, process: ProcessSpec, own: Path, machine: Machine) -> None:
    """Make a host's private folder, and hand it and the rw mounts to the sandbox's user."""
    (own / "etc").mkdir(parents=True)
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
    """Make `user` the owner of a file or folder and all in it.

    Files with several names are left alone unless `linked`: they may be S3 objects, linked in.
    """
    os.chown(path, user, user, follow_symlinks=False)
    for folder, folders, files in os.walk(path):
        for name in folders:
            os.chown(os.path.join(folder, name), user, user, follow_symlinks=False)
        for name in files:
            file = os.path.join(folder, name)
            if linked or os.lstat(file).st_nlink == 1:
                os.chown(file, user, user, follow_symlinks=False)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, whatever the modes in there are; twice is fine."""
    if path.exists():
        make_removable(path)
        shutil.rmtree(path)


def make_removable(path: Path) -> None:
    """Give the owner of each folder the right to list and empty it."""
    for folder, folders, _files in os.walk(path):
        for name in folders:
            inner = os.path.join(folder, name)
            mode = os.lstat(inner).st_mode
            if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                os.chmod(inner, 0o700)
