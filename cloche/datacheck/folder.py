"""Files of a folder, or of anything that can list and read, looked at one by one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cloche.datacheck.findings import Finding, Seen, find
from cloche.datacheck.names import file_paths, visible
from cloche.datacheck.pictures import look

Progress = Callable[[int], None]  # files looked at so far


def look_at(path: str, data: bytes) -> Seen:
    """Return what one file is."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        return Seen(path, digest, look(data))
    except ValueError as error:
        return Seen(path, digest, None, str(error))


def check_files(
    files: Iterable[tuple[str, bytes]],
    folders: Iterable[str] = (),
    progress: Progress | None = None,
) -> list[Finding]:
    """Return the findings of files given as (path below the root, bytes)."""
    seen: list[Seen] = []
    for path, data in files:
        seen.append(look_at(path, data))
        if progress is not None:
            progress(len(seen))
    return find(seen, folders)


def check_folder(root: Path, progress: Progress | None = None) -> list[Finding]:
    """Return the findings of a folder; OSError when it can't be read."""
    folders = class_folders(root)
    return check_files(read(root), folders, progress)


def class_folders(root: Path) -> list[str]:
    """Return the paths below `root` of the folders that have no folder in them."""
    found = []
    for folder, below, _ in os.walk(root, followlinks=True):
        if not visible(below) and Path(folder) != root:
            found.append(Path(folder).relative_to(root).as_posix())
    return found


def read(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all files below `root`."""
    for path in file_paths(root):
        yield path.relative_to(root).as_posix(), path.read_bytes()
