"""The folders of a run directory: filled before a gang starts, removed when it is forgotten."""

import shutil
import stat
from pathlib import Path

from cloche.core.trees import hand_over
from cloche.engine import GangSpec, Mount, ProcessSpec
from cloche.engine.local.sandbox import Machine, etc_files


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


def private_folders(own: Path) -> list[Path]:
    """Return a host's folders that nobody else looks into: /tmp, home, what overlays hold."""
    return [own / "tmp", own / "root", *own.glob("overlay-*")]
