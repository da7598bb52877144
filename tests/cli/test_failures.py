"""Errors of the machine, in words."""

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from cloche.core.config import Home
from cloche.failures import explained

FULL = sqlite3.OperationalError("database or disk is full")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk of /h is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk of /h is full"),
        (OperationalError("INSERT", {}, FULL), "The disk of /h is full"),
        (caused(RuntimeError("x"), FULL), "Nothing that was acknowledged is lost"),
        (PermissionError(errno.EACCES, "Permission denied", "/h/x"), "/h/x can't be used by this"),
        (ValueError("odd"), "The server could not start: ValueError: odd"),
    ],
)
def test_each_says_what_to_do(error: Exception, text: str) -> None:
    assert text in explained(error, Home(Path("/h")))
