"""What can go wrong with the records."""

import errno
from pathlib import Path

import sqlalchemy as sa

from cloche.core.errors import AwsError

# SQLite's result codes (https://sqlite.org/rescode.html) that a full disk leads to: FULL itself,
# IOERR_WRITE, and IOERR_SHMSIZE when the index of the write-ahead log can't grow.
FULL, IOERR_WRITE, IOERR_SHMSIZE = 13, 778, 4874


class AlreadyExists(Exception):
    """A resource of this kind and name is there already."""


class Conflict(Exception):
    """The row changed, or went, since it was read; read again and decide again."""


class NewerDatabase(Exception):
    """The database was written by a newer Cloche; this one leaves it as it is."""

    def __init__(self, path: Path, version: str) -> None:
        super().__init__(
            f"{path} has schema version {version!r}, which a newer Cloche made. "
            "Use that version of Cloche, or another home folder. Nothing was changed."
        )
        self.path, self.version = path, version


class NotADatabase(Exception):
    """The file is not a database of Cloche's."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is not a database of Cloche's: {reason}. Nothing was changed.")
        self.path, self.reason = path, reason


class StorageFull(AwsError):
    """No space is left where Cloche keeps things; the change was not made. Status 507.

    507 and not 503, which the SDKs would retry for a minute before they show it.
    """

    def __init__(self) -> None:
        super().__init__(
            "InsufficientStorage",
            "The disk that holds Cloche's home folder is full. The request was not carried out; "
            "all that was acknowledged before is kept. Free some space and try again.",
            507,
        )


def storage_full(error: BaseException) -> bool:
    """Tell whether an error of the database, or of the file system, means that no space is left."""
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) in (FULL, IOERR_WRITE, IOERR_SHMSIZE)
