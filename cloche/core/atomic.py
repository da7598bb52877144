"""Writes of whole files: readers, and whoever comes after a crash, see the old content or the new.

For folders that only Cloche writes to; what a sandbox can change is opened by `core.beneath`.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PRIVATE = 0o600
UNFINISHED = ".new"  # the suffix of a file that a crash left unfinished
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, content: bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Put a file in place whole and durably, under `mode` less the umask.

    durable: whether it outlives a loss of power; else it only outlives the writing process.
    An OSError leaves the file as it was. Of several writers at once the last one wins.
    """
    # A name of its own: with a shared one, another writer could rename this one's unfinished file.
    new = path.with_name(f".{path.name}.{os.urandom(6).hex()}{UNFINISHED}")
    descriptor = os.open(new, CREATE, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Put a JSON file in place whole and durably, for this user alone."""
    write(path, f"{json.dumps(content, indent=2)}\n".encode())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
