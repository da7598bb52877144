"""Opens, walks and removes what a sandbox can change: below a descriptor, through no link.

A path is looked up again at each use, so between a check and an open a hostile process may put a
link, a FIFO or a socket in its place. Here the kernel refuses links while it looks up
(openat2, Linux 5.6), and what was opened is checked by its descriptor.

Trees may be of any depth: nothing recurses, no path is longer than one name, and few descriptors
are open at a time.
"""

import ctypes
import errno
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

OPENAT2 = 437  # the same number on every architecture
RESOLVE = 0x02 | 0x04 | 0x08  # no magic links, no symlinks, beneath the folder
TRIES = 64  # a rename races with the look-up: EAGAIN
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO would block without O_NONBLOCK
PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
EMPTY_PATH = 0x1000  # AT_EMPTY_PATH: what the descriptor itself stands for
FOLDER_MODE, FILE_MODE = 0o700, 0o400  # what the owner needs to list and empty, to read
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # removed, or something else by now

libc = ctypes.CDLL(None, use_errno=True)


class NoRegularFile(OSError):
    """There is something at the path, and it is not a regular file."""


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """Give a descriptor of a folder whose own path only the server can change."""
    descriptor = os.open(path, PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_beneath(root: int, relative: str | bytes, flags: int) -> int:
    """Return a descriptor of what is at `relative` beneath the folder; OSError when a link, or
    `..`, would lead elsewhere (ELOOP, EXDEV).
    """
    name = os.fsencode(relative)
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a path with a NUL", relative)
    if sys.platform != "linux":
        return walk_down(root, name, flags)
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, RESOLVE)
    for _ in range(TRIES):
        found = libc.syscall(
            OPENAT2, ctypes.c_int(root), ctypes.c_char_p(name), how, ctypes.c_size_t(len(how))
        )
        if found >= 0:
            return int(found)
        error = ctypes.get_errno()
        if error == errno.ENOSYS:
            return walk_down(root, name, flags)
        if error not in (errno.EAGAIN, errno.EINTR):
            raise OSError(error, os.strerror(error), relative)
    raise OSError(errno.EAGAIN, "the path keeps changing", relative)


def walk_down(root: int, name: bytes, flags: int) -> int:
    """Do as `open_beneath` where the kernel can't: one component at a time, following no link."""
    if name.startswith(b"/"):
        raise OSError(errno.EXDEV, "an absolute path", name)
    *folders, last = [part for part in name.split(b"/") if part not in (b"", b".")] or [b"."]
    if b".." in folders or last == b"..":
        raise OSError(errno.EXDEV, "a path with ..", name)
    here = os.dup(root)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def open_file(root: int, relative: str | bytes) -> int:
    """Return a descriptor, to read, of a regular file; NoRegularFile, OSError when it is none."""
    descriptor = open_beneath(root, relative, READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoRegularFile(errno.EINVAL, "no regular file", relative)
    return descriptor


def read(path: Path, relative: str, limit: int, *, end: bool = False) -> bytes | None:
    """Return at most `limit` bytes of the regular file `relative` beneath the folder `path`.

    Its first bytes, or its last with `end`. None: there is no such file, or no regular one.
    """
    try:
        with folder(path) as root:
            descriptor = open_file(root, relative)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if end:
            file.seek(max(0, os.fstat(descriptor).st_size - limit))
        try:
            return file.read(limit)
        except OSError:
            return None


class TooMuch(OSError):
    """A tree has more entries, or longer names, than are looked at."""


class Moved(OSError):
    """A folder was moved elsewhere while its tree was walked."""


@dataclass(frozen=True, slots=True)
class WalkBounds:
    """What a walk looks at, at the most: entries, and bytes of all their paths together."""

    entries: int = 1_000_000
    path_bytes: int = 256 << 20


class TreeEntry(NamedTuple):
    """Something in a tree. `folder`: the descriptor of what it lies in, until the next step.

    `path` is relative to the root; names that are no UTF-8 have surrogates, as os.fsdecode makes.
    """

    folder: int
    name: str
    path: str
    status: os.stat_result


@dataclass(slots=True)
class Level:
    """A folder on the way from the root to where a walk is."""

    identity: tuple[int, int]
    prefix: str
    below: list[str] = field(default_factory=list)  # still to be entered, the next one last


def walk(
    root: int, bounds: WalkBounds | None = None, *, paths: bool = True, repair: bool = False
) -> Iterator[TreeEntry]:
    """Yield all that lies beneath a folder: what is in one, by name, then what its folders hold.

    Only one folder is open at a time. What vanishes meanwhile is left out; Moved when a folder on
    the way is moved, TooMuch past the bounds. With `repair` the owner gets the rights that he took
    from himself; else folders that may not be listed are passed over. Without `paths` they are
    empty, and their length has no bound.
    """
    left = bounds or WalkBounds()
    entries, size = 0, 0
    here = os.open(".", LIST, dir_fd=root)
    try:
        levels = [Level(identity(here), "")]
        fresh = True
        while levels:
            level = levels[-1]
            if fresh:
                names = listed(here, left.entries - entries)
                entries += len(names)
                for name in names:
                    path = level.prefix + name if paths else ""
                    size += len(path)
                    if size > left.path_bytes:
                        raise TooMuch(errno.E2BIG, "the names are too long altogether")
                    status = look(here, name, repair=repair)
                    if status is None:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        level.below.append(name)
                    yield TreeEntry(here, name, path, status)
                level.below.reverse()
            fresh = False
            if level.below:
                name = level.below.pop()
                inner = opened(here, name, denied=() if repair else (errno.EACCES,))
                if inner is not None:
                    os.close(here)
                    here, fresh = inner, True
                    levels.append(Level(identity(here), f"{level.prefix}{name}/" if paths else ""))
                continue
            levels.pop()
            if levels:
                outer = os.open("..", LIST, dir_fd=here)
                os.close(here)
                here = outer
                if identity(here) != levels[-1].identity:
                    raise Moved(errno.ESTALE, "a folder was moved while it was walked")
    finally:
        os.close(here)


def descend(root: int, relative: str, *, repair: bool = False) -> int | None:
    """Return a descriptor, to list, of a folder beneath `root`; None when there is none, or a link
    on the way. With `repair` its owner gets the rights that he took from himself.
    """
    here: int | None = os.dup(root)
    for part in relative.split("/"):
        assert here is not None and part not in ("", "..")
        outer = here
        try:
            status = look(outer, part, repair=repair)
            here = None if status is None else opened(outer, part, denied=(errno.EACCES,))
        finally:
            os.close(outer)
        if here is None:
            break
    return here


def listed(folder: int, most: int) -> list[str]:
    """Return the names in a folder in order; TooMuch when there are more than `most`."""
    names: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            if len(names) >= most:
                raise TooMuch(errno.E2BIG, "there are too many files")
            names.append(entry.name)
    return sorted(names)


def look(folder: int, name: str, *, repair: bool) -> os.stat_result | None:
    """Return the status of an entry, a link's own; None when it is gone."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        needed = {stat.S_IFDIR: FOLDER_MODE, stat.S_IFREG: FILE_MODE}.get(
            stat.S_IFMT(status.st_mode), 0
        )
        if repair and status.st_mode & needed != needed:
            change_mode(folder, name, lambda mode: mode | needed)
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status


def opened(folder: int, name: str, denied: tuple[int, ...]) -> int | None:
    """Return a descriptor, to list, of a folder in a folder; None when it is none any more.

    denied: further errors for which it is passed over.
    """
    try:
        return os.open(name, LIST, dir_fd=folder)
    except OSError as error:
        if error.errno in (*GONE, *denied):
            return None
        raise


def identity(descriptor: int) -> tuple[int, int]:
    """Return what tells an open file or folder from all others."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@contextmanager
def held(folder: int, name: str) -> Iterator[int]:
    """Give a descriptor that stands for an entry itself, whatever it is: no rights are needed."""
    flags = PATH_ONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def change_mode(folder: int, name: str, wanted: Callable[[int], int]) -> None:
    """Give a file or folder, never a link, the mode that `wanted` makes of its own."""
    if sys.platform != "linux":
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        os.chmod(name, wanted(stat.S_IMODE(mode)), dir_fd=folder, follow_symlinks=False)
        return
    with held(folder, name) as descriptor:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISLNK(mode):
            # The path of a descriptor leads to what it stands for: nothing is looked up again.
            os.chmod(f"/proc/self/fd/{descriptor}", wanted(stat.S_IMODE(mode)))


def change_owner(
    folder: int, name: str, user: int, wanted: Callable[[os.stat_result], bool] | None = None
) -> None:
    """Give an entry itself, of a link the link, to a user, if `wanted` of what it is now."""
    if sys.platform != "linux":
        if wanted is None or wanted(os.stat(name, dir_fd=folder, follow_symlinks=False)):
            os.chown(name, user, user, dir_fd=folder, follow_symlinks=False)
        return
    with held(folder, name) as descriptor:
        if wanted is None or wanted(os.fstat(descriptor)):
            own(descriptor, user)


def own(descriptor: int, user: int) -> None:
    """Give what a descriptor stands for to a user."""
    empty = ctypes.c_char_p(b"")
    if libc.fchownat(ctypes.c_int(descriptor), empty, user, user, ctypes.c_int(EMPTY_PATH)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def disk_used(path: Path) -> int:
    """Return the bytes on disk of all that can be seen in a folder; a file with several names
    counts once.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    with suppress(OSError), folder(path) as root:
        for entry in walk(root, WalkBounds(entries=1 << 40), paths=False):
            status = entry.status
            if stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                continue
            if status.st_nlink > 1:
                seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def remove(path: Path) -> None:
    """Remove a folder and all in it, or a file; twice is fine. OSError when something stays.

    Folders are moved up into `path` and emptied there: however deep a tree is, each step takes one
    name, and who is stopped in between goes on with what is left.
    """
    try:
        with folder(path.parent) as parent:
            if not unlinked(parent, path.name):
                empty(parent, path.name)
                os.rmdir(path.name, dir_fd=parent)
    except FileNotFoundError:
        return


def unlinked(folder: int, name: str) -> bool:
    """Remove an entry unless it is a folder; True: it is gone."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):  # EPERM is what POSIX says of a folder
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise
        return False
    return True


def empty(parent: int, name: str) -> None:
    """Remove everything in a folder."""
    root = entered(parent, name)
    try:
        while True:
            done, failure = 0, None
            with os.scandir(root) as found:
                for entry in found:
                    try:
                        if not unlinked(root, entry.name):
                            done += flatten(root, entry.name)
                            with suppress(FileNotFoundError):
                                os.rmdir(entry.name, dir_fd=root)
                        done += 1
                    except OSError as error:
                        failure = error
            if done == 0:
                if failure is not None:
                    raise failure
                return
    finally:
        os.close(root)


def flatten(root: int, name: str) -> int:
    """Empty a folder in `root`: its own folders are moved into `root`. Return how many."""
    moved = 0
    here = entered(root, name)
    try:
        with os.scandir(here) as found:
            for entry in found:
                # What can't be removed stays; the removal of this folder tells.
                with suppress(OSError):
                    if not unlinked(here, entry.name):
                        permit(here, entry.name)  # its ".." changes: that takes the right to write
                        new = secrets.token_hex(8)
                        os.rename(entry.name, new, src_dir_fd=here, dst_dir_fd=root)
                        moved += 1
    finally:
        os.close(here)
    return moved


def entered(parent: int, name: str) -> int:
    """Return a descriptor of a folder in which its owner may do everything."""
    permit(parent, name)
    return os.open(name, LIST, dir_fd=parent)


def permit(parent: int, name: str) -> None:
    """Give the owner of a folder the right to list and empty it."""
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & FOLDER_MODE != FOLDER_MODE:
        with suppress(PermissionError):  # another's, which the rights of root do for
            change_mode(parent, name, lambda mode: mode | FOLDER_MODE)
