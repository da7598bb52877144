"""What a script left, as a tar.gz or as files to send one by one.

It may be hostile: every step goes by descriptors, symbolic links are archived as links and never
followed, and files, names and holes have bounds. The work grows with the files, not faster.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from isal import igzip

from cloche.core import beneath
from cloche.core.errors import AwsError

PIECE = 1 << 20  # bytes copied at a time
LEVEL = 1  # quick rather than thorough: weights hardly shrink
BOUNDS = beneath.WalkBounds(entries=1_000_000, path_bytes=128 << 20)
LONGEST_PATH = 4095  # bytes: no system call takes a longer one, so that nobody could unpack it
HOLES = 16 << 30  # bytes that files of one archive may claim to have beyond what they take
LONGEST_KEY = 1024  # bytes of an S3 key
RECORD = 10_240  # a tar file is a multiple of that


class Stopped(Exception):
    """Whoever wanted the archive does not any more."""


@contextmanager
def trees(mls: Sequence[Path], relative: str) -> Iterator[list[int]]:
    """Give descriptors of the folder `relative` of each host that has one."""
    with ExitStack() as opened:
        found = []
        for ml in mls:
            try:
                root = opened.enter_context(beneath.folder(ml))
                tree = beneath.descend(root, relative, repair=True)
            except FileNotFoundError:
                continue
            if tree is not None:
                opened.callback(os.close, tree)
                found.append(tree)
        yield found


def entries(roots: Sequence[int]) -> Iterator[tuple[int, beneath.TreeEntry]]:
    """Yield the number of its root and the entry for all beneath them; the first root wins.

    AwsError when it is too much.
    """
    seen: set[str] | None = set() if len(roots) > 1 else None
    left = BOUNDS.entries
    try:
        for number, root in enumerate(roots):
            bounds = beneath.WalkBounds(left, BOUNDS.path_bytes)
            for entry in beneath.walk(root, bounds, repair=True):
                left -= 1
                if seen is not None:
                    if entry.path in seen:
                        continue
                    seen.add(entry.path)
                yield number, entry
    except beneath.TooMuch as error:
        raise too_much(f"{error.strerror}: at most {BOUNDS.entries:,} files are taken") from error


def too_much(text: str) -> AwsError:
    """Return the error for what is not sent as it is."""
    return AwsError("ArtifactTooLarge", text, 400)


def archive(mls: Sequence[Path], folder: str, target: Path, stop: threading.Event) -> bool:
    """Write all beneath a folder of the hosts as a tar.gz; False (and no file): there is nothing.

    Owners are left out. AwsError when it is too much, Stopped when `stop` is set meanwhile.
    """
    with trees(mls, folder) as roots:
        found = entries(roots)
        first = next(found, None)
        if first is None:
            return False
        compressed: Any = igzip.IGzipFile(target, "wb", LEVEL)  # type: ignore[no-untyped-call]
        with compressed, io.BufferedWriter(compressed, PIECE) as out:
            tar = Tar(out, stop)
            tar.add(*first)
            for number, entry in found:
                tar.add(number, entry)
            tar.finish()
    return True


class Tar:
    """Writes a tar file (pax), entry by entry."""

    def __init__(self, out: io.BufferedWriter[Any], stop: threading.Event) -> None:
        self.out, self.stop = out, stop
        self.size = self.holes = 0
        self.linked: dict[tuple[int, int, int], str] = {}  # files with several names, by inode

    def add(self, root: int, entry: beneath.TreeEntry) -> None:
        """Add an entry; what is neither file, folder nor link is left out."""
        if self.stop.is_set():
            raise Stopped
        if len(os.fsencode(entry.path)) > LONGEST_PATH:
            raise too_much(f"a path has more than {LONGEST_PATH:,} bytes: {entry.path[:80]}…")
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            self.head(entry, entry.status, tarfile.DIRTYPE)
        elif stat.S_ISLNK(mode):
            target = os.readlink(entry.name, dir_fd=entry.folder)
            self.head(entry, entry.status, tarfile.SYMTYPE, target)
        elif stat.S_ISREG(mode):
            self.file(root, entry)

    def file(self, root: int, entry: beneath.TreeEntry) -> None:
        """Add a regular file, or a link to one that is there under another name."""
        descriptor = os.open(
            entry.name, beneath.READ | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.folder
        )
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return
            if status.st_nlink > 1:
                key = (root, status.st_dev, status.st_ino)
                if key in self.linked:
                    self.head(entry, status, tarfile.LNKTYPE, self.linked[key])
                    return
                self.linked[key] = entry.path
            self.holes += max(0, status.st_size - status.st_blocks * 512)
            if self.holes > HOLES:
                raise AwsError("InsufficientDiskSpace", "Insufficient disk space", 400)
            self.head(entry, status, tarfile.REGTYPE)
            self.content(file, status.st_size)

    def head(
        self, entry: beneath.TreeEntry, status: os.stat_result, kind: bytes, target: str = ""
    ) -> None:
        """Write what stands before a file's content."""
        info = tarfile.TarInfo(entry.path)
        info.type, info.linkname = kind, target
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        info.uname = info.gname = "root"
        info.size = status.st_size if kind == tarfile.REGTYPE else 0
        self.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def content(self, file: io.RawIOBase | BinaryIO, size: int) -> None:
        """Write a file's content, of exactly that size."""
        left = size
        while left:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise OSError(errno.EIO, "a file became shorter while it was archived")
            self.write(piece)
            left -= len(piece)
            if self.stop.is_set():
                raise Stopped
        self.write(bytes(-size % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        """Write the end."""
        self.write(bytes(2 * tarfile.BLOCKSIZE))
        self.write(bytes(-self.size % RECORD))

    def write(self, data: bytes) -> None:
        """Write, and count."""
        self.out.write(data)
        self.size += len(data)


def regular(mls: Sequence[Path], folder: str, prefix: str) -> list[tuple[str, Path]]:
    """Return relative name and host of the plain files beneath a folder of the hosts.

    AwsError when one can't be an object beneath the prefix.
    """
    found: dict[str, Path] = {}
    for ml in mls:
        with trees([ml], folder) as roots:
            for _, entry in entries(roots):
                if stat.S_ISREG(entry.status.st_mode):
                    key_of(prefix, entry.path)
                    found.setdefault(entry.path, ml)
    return list(found.items())


def key_of(prefix: str, path: str) -> str:
    """Return the S3 key of a file; AwsError when there can be no such key."""
    try:
        key = f"{prefix}{path}"
        if len(key.encode()) <= LONGEST_KEY:
            return key
    except UnicodeEncodeError:
        text = f"a file's name is not UTF-8, so no object can have it: {path!r}"
        raise AwsError("InvalidURI", text, 400) from None
    raise AwsError("KeyTooLongError", f"Your key is too long: {key[:80]}…", 400)


def open_sent(ml: Path, relative: str) -> int:
    """Return a descriptor of a plain file of a host that is to be sent; OSError, AwsError."""
    with beneath.folder(ml) as root:
        descriptor = beneath.open_file(root, relative)
    status = os.fstat(descriptor)
    if status.st_size - status.st_blocks * 512 > HOLES:
        os.close(descriptor)
        raise AwsError("InsufficientDiskSpace", "Insufficient disk space", 400)
    return descriptor
