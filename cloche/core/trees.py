"""Whole folders, whatever is in them: handed to another user, or cleared away."""

import logging
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cloche.core import beneath

logger = logging.getLogger("cloche.trees")
BOUNDLESS = beneath.WalkBounds(entries=1 << 40, path_bytes=0)


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


def clear_away(paths: Sequence[Path]) -> None:
    """Remove folders that nobody asks for any more; what can't be is told, and left."""
    for path in paths:
        try:
            beneath.remove(path)
        except OSError as error:
            logger.warning("%s was not removed; the next start tries again: %s", path, error)
