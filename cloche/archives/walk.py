"""The child that unpacks a user's archive: every entry is created below a descriptor.

No name is looked up through a link: folders are opened one by one with O_NOFOLLOW, files are
always new (O_EXCL), links are made and never followed. On top of that the child has limits of
memory, time and file size, and a root server's can't see anything but the folder (chroot).

It reads the archive from stdin and answers on stdout: `ok`, or why not, with exit code 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import sys

from .reader import FILE, FOLDER, HARDLINK, SYMLINK, ArchiveReader, BadArchive, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .reader import ArchiveEntry

LONGEST_PATH, LONGEST_NAME = 4096, 255
LOOK_AGAIN = 64 << 20  # bytes written between looks at what is left of the disk
ENTRIES_AGAIN = 1000  # likewise
FREE_INODES = 1000
PARENT = os.getppid()
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LONGEST_WHY = 1000


class Walk:
    """Creates entries below a folder's descriptor."""

    def __init__(self, root: int, bounds: dict[str, Any]) -> None:
        self.root, self.bounds = root, bounds
        self.opened: list[tuple[bytes, int]] = []  # the folders from the root to where we are
        self.made = 0
        self.written = 0

    def take(self, entry: ArchiveEntry, reader: ArchiveReader) -> None:
        """Create one entry."""
        parts = split(entry.name, entry.name)
        if entry.kind == FOLDER:
            self.folder(parts, entry.name)
            return
        if not parts:
            raise BadArchive(f"{shown(entry.name)} has no name")
        *above, name = parts
        parent = self.folder(above, entry.name)
        self.count()
        if entry.kind == FILE:
            self.write(parent, name, entry, reader)
        elif entry.kind == SYMLINK:
            inside(entry, above)
            self.create_entry(
                entry.name, parent, name, lambda: os.symlink(entry.target, name, dir_fd=parent)
            )
        elif entry.kind == HARDLINK:
            self.link(parent, name, entry)

    def folder(self, parts: list[bytes], whole: bytes) -> int:
        """Return the descriptor of a folder, made if it is not there."""
        if len(parts) > self.bounds["depth"]:
            raise BadArchive(f"{shown(whole)} is nested deeper than {self.bounds['depth']} folders")
        same = 0
        for part, (name, _) in zip(parts, self.opened, strict=False):
            if part != name:
                break
            same += 1
        while len(self.opened) > same:
            os.close(self.opened.pop()[1])
        for part in parts[same:]:
            here = self.opened[-1][1] if self.opened else self.root
            try:
                inner = os.open(part, OPEN_FOLDER, dir_fd=here)
            except FileNotFoundError:
                self.count()
                os.mkdir(part, 0o755, dir_fd=here)
                inner = os.open(part, OPEN_FOLDER, dir_fd=here)
            except OSError:
                raise BadArchive(
                    f"{shown(whole)} leads through something that is not a folder"
                ) from None
            self.opened.append((part, inner))
        return self.opened[-1][1] if self.opened else self.root

    def write(self, parent: int, name: bytes, entry: ArchiveEntry, reader: ArchiveReader) -> None:
        """Create a file. Nobody but its owner may write it, nothing runs as another user."""
        file = self.create_entry(
            entry.name, parent, name, lambda: os.open(name, CREATE, 0o600, dir_fd=parent)
        )
        try:
            for piece in reader.content():
                view = memoryview(piece)
                while view:
                    view = view[os.write(file, view) :]
                self.written += len(piece)
                if self.written >= LOOK_AGAIN:
                    self.written = 0
                    check_disk(self.root, self.bounds["free"])
            mode = entry.mode & 0o755 | 0o600
            os.fchmod(file, mode if mode & 0o100 else mode & 0o644)
            with contextlib.suppress(OSError, OverflowError, ValueError):  # a time that is none
                os.utime(file, (entry.mtime, entry.mtime))
        finally:
            os.close(file)

    def link(self, parent: int, name: bytes, entry: ArchiveEntry) -> None:
        """Give a file of the archive another name."""
        *above, last = split(entry.target, entry.name) or [b"."]
        here = os.dup(self.root)
        try:
            for part in above:
                inner = os.open(part, OPEN_FOLDER, dir_fd=here)
                os.close(here)
                here = inner
            found = os.stat(last, dir_fd=here, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise BadArchive(f"{shown(entry.name)} is a link to {shown(entry.target)}, no file")
            with contextlib.suppress(FileNotFoundError):  # packed twice: it is that file already
                if os.path.samestat(found, os.stat(name, dir_fd=parent, follow_symlinks=False)):
                    return
            self.create_entry(
                entry.name,
                parent,
                name,
                lambda: os.link(
                    last, name, src_dir_fd=here, dst_dir_fd=parent, follow_symlinks=False
                ),
            )
        except OSError as error:
            text = f"{shown(entry.name)} is a link to {shown(entry.target)}: {error.strerror}"
            raise BadArchive(text) from None
        finally:
            os.close(here)

    def create_entry(
        self, whole: bytes, parent: int, name: bytes, create: Callable[[], Any]
    ) -> Any:
        """Create something; a file or link of that name goes, a folder stays."""
        try:
            return create()
        except FileExistsError:
            try:
                os.unlink(name, dir_fd=parent)
            except OSError:
                raise BadArchive(f"{shown(whole)} would replace a folder") from None
            return create()

    def count(self) -> None:
        """BadArchive when there is one entry too many."""
        self.made += 1
        if self.made > self.bounds["entries"]:
            raise BadArchive(f"it holds more than {self.bounds['entries']} files and folders")
        if self.made % ENTRIES_AGAIN == 0:
            check_disk(self.root, self.bounds["free"])


def split(path: bytes, whole: bytes) -> list[bytes]:
    """Return a path's parts, as seen from the folder; BadArchive when it leads out of it."""
    if len(path) > LONGEST_PATH:
        raise BadArchive(f"{shown(whole)} is longer than {LONGEST_PATH} bytes")
    if b"\0" in path:
        raise BadArchive(f"{shown(whole)} contains a NUL")
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise BadArchive(f"{shown(whole)} points outside the archive")
            parts.pop()
        elif part not in (b"", b"."):
            if len(part) > LONGEST_NAME:
                raise BadArchive(f"{shown(whole)} has a part of more than {LONGEST_NAME} bytes")
            parts.append(part)
    return parts


def inside(entry: ArchiveEntry, above: list[bytes]) -> None:
    """BadArchive for a symbolic link that leads out, read as text; nothing here follows one."""
    if not entry.target or entry.target.startswith(b"/"):
        raise BadArchive(f"{shown(entry.name)} is a link that points outside the archive")
    split(b"/".join([*above, entry.target]), entry.name)


def check_disk(root: int, free: int) -> None:
    """BadArchive when others would find too little left; end when nobody waits any more."""
    if os.getppid() != PARENT:
        os._exit(2)
    disk = os.fstatvfs(root)
    inodes = disk.f_favail if disk.f_files else FREE_INODES
    if disk.f_bavail * disk.f_frsize < free or inodes < FREE_INODES:
        raise BadArchive("there is no space left on the disk")


def confine(root: int, bounds: dict[str, Any]) -> None:
    """Give up what is not needed."""
    limits = (
        (resource.RLIMIT_AS, bounds["memory"]),
        (resource.RLIMIT_CPU, bounds["cpu_s"]),
        (resource.RLIMIT_FSIZE, bounds["size"]),
        (resource.RLIMIT_NOFILE, bounds["depth"] * 2 + 64),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, limit in limits:
        with contextlib.suppress(ValueError, OSError):  # it is lower already, or unknown here
            resource.setrlimit(kind, (limit, limit))
    os.fchdir(root)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a container may forbid it
            os.chroot(".")


def unpack(root: int, bounds: dict[str, Any]) -> None:
    """Unpack stdin below a folder."""
    check_disk(root, bounds["free"])
    walk = Walk(root, bounds)
    if bounds["into"]:
        walk.root = walk.folder([bounds["into"].encode()], bounds["into"].encode())
        walk.opened = []
    with open(0, "rb", buffering=0, closefd=False) as stream:
        reader = ArchiveReader(stream, bounds["size"])
        for entry in reader.entries():
            walk.take(entry, reader)


def main() -> None:
    """Run as `ROOT_FD BOUNDS`, bounds as JSON (`archives.Bounds`)."""
    root, bounds = int(sys.argv[1]), json.loads(sys.argv[2])
    "".encode("utf-8", "replace").decode("utf-8", "replace")  # loaded before there are no files
    try:
        confine(root, bounds)
        unpack(root, bounds)
        answer, code = "ok", 0
    except BadArchive as error:
        answer, code = str(error), 1
    except MemoryError:
        answer, code = "it takes too much memory to unpack", 1
    except OSError as error:
        answer, code = os.strerror(error.errno or 0), 1
    except Exception as error:
        answer, code = f"{type(error).__name__}: {error}", 1
    os.write(1, answer[:LONGEST_WHY].encode("utf-8", "replace"))
    os._exit(code)
