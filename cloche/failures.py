"""Errors of the machine, in words that say what to do."""

import errno
import sqlite3
import traceback

from sqlalchemy.exc import OperationalError

from cloche.core.config import Home
from cloche.core.private import NotPrivate

FULL = (errno.ENOSPC, errno.EDQUOT)


def explained(error: BaseException, home: Home) -> str:
    """Return what stopped the server, for its owner."""
    if is_disk_full(error):
        return (
            f"The disk of {home.path} is full. Nothing that was acknowledged is lost; free some "
            "space and run `cloche up` again."
        )
    if isinstance(error, NotPrivate):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.filename or home.path} can't be used by this user: {error.strerror}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({last[0].filename}:{last[0].lineno})" if last else ""
    return f"The server could not start: {type(error).__name__}: {error}{where}"


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether the error, or what caused it, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        inner = error.orig if isinstance(error, OperationalError) else error
        if isinstance(inner, sqlite3.OperationalError) and "full" in str(inner):
            return True
        error = error.__cause__ or error.__context__
    return False
