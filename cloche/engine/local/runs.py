"""What a run directory tells of its gang: whether it runs, and what is written down."""

import fcntl
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

from cloche.engine import EngineError
from cloche.engine.local.supervisor.version import VERSION

logger = logging.getLogger("cloche.engine")

START_WITHIN_S = 90.0
ANSWER_WITHIN_S = 5.0


def held(folder: Path) -> bool:
    """Tell whether a supervisor (or a launch under way) holds the run directory's lock."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def runs(folder: Path) -> bool:
    """Tell whether a gang is starting or a process of it runs."""
    if not held(folder):
        return False
    state = read_record(folder / "state.json")
    return state is None or not all(
        (folder / f"exit-{name}.json").exists() for name in state["processes"]
    )


def await_start(folder: Path) -> bool:
    """Tell whether the gang was started before; waits where a start is still under way."""
    until = time.monotonic() + START_WITHIN_S
    while not (folder / "state.json").exists():
        if not held(folder):
            return (folder / "state.json").exists()
        if time.monotonic() > until:
            raise EngineError(f"{folder.name}: its supervisor makes no progress")
        time.sleep(0.005)
    return True


def await_end(folder: Path) -> None:
    """Return when the supervisor has let go of the run directory of an ended gang."""
    until = time.monotonic() + ANSWER_WITHIN_S
    while held(folder):
        if time.monotonic() > until:
            raise EngineError(f"{folder.name}: its supervisor does not end")
        time.sleep(0.002)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record of the run directory; None when it is not written, or not to its end.

    EngineError: a newer release wrote it.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        version = record.get("version", 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError):  # who wrote it was killed, or the machine lost power
        logger.warning("%s is not whole: it counts as not written", path)
        return None
    if version > VERSION:
        raise EngineError(
            f"{path} was written by a newer Cloche (version {version} of what runs; this "
            f"one reads up to {VERSION}). Nothing was changed. Update Cloche."
        )
    return record


def read_file(path: Path, offset: int, limit: int) -> bytes:
    """Return a part of a regular file; a negative offset is from its end. Not there: empty."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(opened, "rb", buffering=0) as file:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            return b""
        start = offset if offset >= 0 else max(0, status.st_size + offset)
        return os.pread(file.fileno(), limit, start)
