"""Files of a folder, or of anything that can list and read, looked at one by one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cloche.datacheck.findings import Finding, SeenFile, find
from cloche.datacheck.names import hidden
from cloche.datacheck.pictures import look

LARGEST = 256 << 20  # bytes of a file of the owner's; larger ones are no pictures to train on
MOST = 1_000_000  # files, and folders
TOO_LARGE = f"has more than {LARGEST >> 20} MiB"
Progress = Callable[[int], None]  # files looked at so far


class TooMany(Exception):
    """A folder has more files, or folders, than are looked at."""


def look_at(path: str, data: bytes | None) -> SeenFile:
    """Return what one file is. None: it is larger than `LARGEST`."""
    if data is None:
        return SeenFile(path, f"? {path}", None, TOO_LARGE)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return SeenFile(path, digest, look(data))
    except ValueError as error:
        return SeenFile(path, digest, None, str(error))
    except MemoryError:  # it says nothing against the picture
        return SeenFile(path, digest, None)


def check_files(
    files: Iterable[tuple[str, bytes | None]],
    folders: Iterable[str] = (),
    progress: Progress | None = None,
) -> list[Finding]:
    """Return the findings of files given as (path below the root, bytes)."""
    seen: list[SeenFile] = []
    for path, data in files:
        seen.append(look_at(path, data))
        if progress is not None:
            progress(len(seen))
    return find(seen, folders)


def check_folder(root: Path, progress: Progress | None = None) -> list[Finding]:
    """Return the findings of a folder; OSError when it can't be read, TooMany."""
    folders = class_folders(root)
    return check_files(read(root), folders, progress)


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder, what is in it of folders and of files, but what is hidden; in order.

    Links are followed, for it is the owner's own folder, but not into a folder that leads there.
    """
    ways: dict[str, frozenset[tuple[int, int]]] = {}
    count = 0
    for folder, below, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        identity = status.st_dev, status.st_ino
        way = ways.pop(folder, frozenset())
        if identity in way:
            below.clear()
            continue
        below[:] = visible(below)
        shown = visible(names)
        count += len(below) + len(shown)
        if count > MOST:
            raise TooMany
        ways.update((os.path.join(folder, name), way | {identity}) for name in below)
        yield Path(folder), list(below), shown


def class_folders(root: Path) -> list[str]:
    """Return the paths below `root` of the folders that have no folder in them."""
    found = [folder for folder, below, _ in walk(root) if not below and folder != root]
    return [folder.relative_to(root).as_posix() for folder in found]


def file_paths(root: Path) -> list[Path]:
    """Return all files below `root` but hidden ones, in order; TooMany."""
    return [folder / name for folder, _, names in walk(root) for name in names]


def read(root: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield all files below `root`, with None for what is too large."""
    for path in file_paths(root):
        yield path.relative_to(root).as_posix(), content(path)


def content(path: Path) -> bytes | None:
    """Return what a file holds, nothing of what is no regular file; None when it is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        data = file.read(LARGEST + 1)
    return data if len(data) <= LARGEST else None


def visible(names: Iterable[str]) -> list[str]:
    """Return the names that are not hidden, in order."""
    return sorted(name for name in names if not hidden(name))
