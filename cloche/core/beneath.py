"""Opens what a sandbox can change: below a folder's descriptor, through no link.

A path is looked up anew at each use, so between a check and an open a hostile process may put a
link, a FIFO or a socket in its place. Here the kernel refuses links while it looks up
(openat2, Linux 5.6), and what was opened is checked by its descriptor.
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPENAT2 = 437  # the same number on every architecture
RESOLVE = 0x02 | 0x04 | 0x08  # no magic links, no symlinks, beneath the folder
TRIES = 64  # a rename races with the look-up: EAGAIN
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO would block without O_NONBLOCK
PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)

libc = ctypes.CDLL(None, use_errno=True)


class NoRegularFile(OSError):
    """There is something at the path, and it is no regular file."""


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
