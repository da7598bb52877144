"""Where objects' contents lie: immutable files, each with a name of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from cloche.core.atomic import sync_folder
from cloche.core.ids import blob_id
from cloche.records.errors import StorageFull, storage_full

logger = logging.getLogger("cloche.s3")
PIECE = 1 << 20  # bytes read at a time
READ_ONLY = 0o444
CAN_NOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


class BlobWriter(Protocol):
    """A blob in the making. Blocking: call it where blocking is fine."""

    blob: str
    size: int

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append; StorageFull when there is no space."""

    def keep(self) -> None:
        """Make the blob durable and unchangeable; it stays until it is deleted."""

    def discard(self) -> None:
        """Drop what was written."""


class BlobStore(Protocol):
    """Keeps contents under ids that it draws. A blob never changes. All methods block."""

    def create(self) -> BlobWriter:
        """Return a writer of a new blob."""

    def copy(self, blob: str) -> str:
        """Return a new durable blob with the same content; FileNotFoundError when it is gone."""

    def join(self, blobs: Sequence[tuple[str, int]]) -> str:
        """Return a new durable blob: the contents (blob, size in bytes) one after the other."""

    def path(self, blob: str) -> Path:
        """Return the file with the content."""

    def delete(self, *blobs: str) -> None:
        """Remove blobs; those that are gone already are no error."""

    def sweep(self, named: set[str]) -> set[str]:
        """Remove what a killed server left behind: blobs that no row names, nor this store made.

        Returns those that have a name and are not there. Others may write meanwhile.
        """


class LocalBlobs:
    """Blobs as files `FOLDER/xx/<32 hex digits>`, mode 0444.

    A blob is written under its own name: until its row is committed nobody knows the name, and if
    that never happens the file is an orphan, which `sweep` removes. A temporary name would make
    nothing safer and cost a second commit of the file system's journal.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"{n:02x}" for n in range(256)]
        folder.mkdir(parents=True, exist_ok=True)
        made = [name for name in self.names if self._make(name)]
        if made:
            sync_folder(folder)
        # Not flock: a lock of that kind would live on in processes forked from this one.
        self.lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.made: set[str] = set()  # until it is swept: these may get their rows yet
        self.swept = False

    def _make(self, name: str) -> bool:
        try:
            (self.folder / name).mkdir()
        except FileExistsError:
            return False
        return True

    def path(self, blob: str) -> Path:
        """Return the file with the content."""
        return self.folder / blob[:2] / blob

    def create(self) -> LocalWriter:
        """Return a writer of a new blob."""
        return LocalWriter(self, self._new())

    def _new(self) -> str:
        blob = blob_id()
        if not self.swept:
            self.made.add(blob)
        return blob

    def copy(self, blob: str) -> str:
        """Return a new blob with the same content: a hard link, or a copy where links run out."""
        new = self._new()
        try:
            os.link(self.path(blob), self.path(new))
        except OSError as error:
            if error.errno not in CAN_NOT_LINK:
                raise translated(error) from error
            return self.join([(blob, self.path(blob).stat().st_size)])
        sync_folder(self.path(new).parent)
        return new

    def join(self, blobs: Sequence[tuple[str, int]]) -> str:
        """Return a new blob made of others, copied inside the kernel."""
        writer = self.create()
        try:
            for blob, size in blobs:
                writer.append(self.path(blob), 0, size)
            writer.keep()
        except BaseException:
            writer.discard()
            raise
        return writer.blob

    def delete(self, *blobs: str) -> None:
        """Remove blobs; those that are gone already are no error."""
        for blob in blobs:
            with contextlib.suppress(FileNotFoundError):
                self.path(blob).unlink()

    def sweep(self, named: set[str]) -> set[str]:
        """Remove the files that no row names, unless another process has the folder open.

        A file that has no row and was not made by this process can never get one.
        """
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.warning("%s is in use by another process: not swept", self.folder)
            return set()
        missing = set(named)
        for name in self.names:
            here = {entry.name: entry.path for entry in os.scandir(self.folder / name)}
            missing -= here.keys()
            for blob in here.keys() - named - self.made:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(here[blob])
        self.swept = True
        self.made.clear()
        return missing


class LocalWriter:
    """Writes one file, which is made with the first piece: in the thread that may block."""

    def __init__(self, store: LocalBlobs, blob: str) -> None:
        self.store, self.blob, self.size = store, blob, 0
        self.path = store.path(blob)
        self.fd = -1

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append; StorageFull when there is no space."""
        try:
            self._open()
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self.fd, view) :]
                self.size += len(piece)
        except OSError as error:
            raise translated(error) from error

    def _open(self) -> None:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)

    def append(self, path: Path, offset: int, length: int) -> None:
        """Append a piece of a file: shared where the file system can, else copied in the kernel."""
        source = os.open(path, os.O_RDONLY)
        try:
            self._open()
            end = offset + length
            while offset < end:
                copied = copy_range(source, self.fd, offset, end - offset)
                if copied == 0:
                    raise OSError(errno.EIO, "shorter than its record says", str(path))
                offset += copied
                self.size += copied
        except OSError as error:
            raise translated(error) from error
        finally:
            os.close(source)

    def keep(self) -> None:
        """Make the file read-only, and file and name durable."""
        try:
            self._open()
            os.fchmod(self.fd, READ_ONLY)
            os.fsync(self.fd)
            sync_folder(self.path.parent)
        except OSError as error:
            raise translated(error) from error
        os.close(self.fd)
        self.fd = -1

    def discard(self) -> None:
        """Drop the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.store.delete(self.blob)


def copy_range(source: int, target: int, offset: int, length: int) -> int:
    """Copy up to `length` bytes from `offset` to the target's end; return how many, 0: no more."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, length, offset)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return os.write(target, os.pread(source, min(length, PIECE), offset))


def link_or_copy(source: Path, destination: Path) -> None:
    """Give a blob a further name, as a hard link; a copy where a link can't be.

    Across devices, or where a file has all the links that it can have.
    """
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in CAN_NOT_LINK:
            raise translated(error) from error
        shutil.copyfile(source, destination)
        destination.chmod(READ_ONLY)


def translated(error: OSError) -> Exception:
    """Return StorageFull for an error that means no space, else the error itself."""
    return StorageFull() if storage_full(error) else error
