"""Builds that outlive who asked for them: one process for each environment, found again by files.

Beside an environment's folder lie

    <folder>.building   locked while its process lives: the lock is taken before the process is
                        born, which inherits it, and the kernel frees it. Holds {"starts", "pid"}
    <folder>.log        what venv and pip said, a line a record: `<milliseconds since 1970> <text>`
    <folder>.failed     why the last build failed, and when
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cloche.core import log_lines
from cloche.core.atomic import write_json
from cloche.core.clock import SystemClock, to_ms
from cloche.core.config import Home
from cloche.environments.ready import Ready, folder_of, ready
from cloche.environments.table import Framework

STARTS = 3  # of processes, one after the other, that may be killed before the build has failed
LOOK_AGAIN_S = 0.1
MOST_READ = 1 << 20  # bytes of a log at a time; no line is longer
KILLED = "its process was killed {starts} times; see {log}"


@dataclass(frozen=True, slots=True)
class Building:
    """It is being built."""

    log: Path


@dataclass(frozen=True, slots=True)
class Failed:
    """The build failed. `lines` are the last that pip said; the time is in ms since 1970."""

    reason: str
    lines: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Files:
    """Where a build leaves what."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Locked by the process that builds."""
        return self.folder.with_name(f"{self.folder.name}.building")

    @property
    def log(self) -> Path:
        """What the newest build said."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def failed(self) -> Path:
        """Why it failed."""
        return self.folder.with_name(f"{self.folder.name}.failed")


def wanted(framework: Framework, home: Home, since_ms: int) -> Ready | Building | Failed:
    """Return the environment, or how far its build is: it is started unless it runs.

    `since_ms`: since when the caller has wanted it. An older failure is not the caller's: it is
    tried again. Everybody may call it at once, before and after a kill of any of them.
    """
    if (found := ready(framework, home)) is not None:
        return found
    home.environments.mkdir(parents=True, exist_ok=True)
    files = Files(folder_of(framework, home))
    with files.lock.open("a+") as lock:
        if not taken(lock):
            return Building(files.log)
        if (found := ready(framework, home)) is not None:  # built in between
            return found
        failed = failure(framework, home)
        if failed is not None and failed.at_ms >= since_ms:
            return failed
        starts = starts_of(lock)
        if starts >= STARTS:
            fail(files, KILLED.format(starts=starts, log=files.log), ())
            say_of(lock, {})
            return failure(framework, home) or Building(files.log)
        files.failed.unlink(missing_ok=True)
        say_of(lock, {"starts": starts + 1})
        pid = start(framework, home, files, lock)
        say_of(lock, {"starts": starts + 1, "pid": pid})
    return Building(files.log)


def start(framework: Framework, home: Home, files: Files, lock: IO[str]) -> int:
    """Start the process that builds, and return its pid; it inherits the lock."""
    command = [sys.executable, "-P", "-m", "cloche.builder"]
    name = [framework.name, framework.over]
    arguments = [str(home.path), str(lock.fileno()), *name, *framework.packages]
    with files.log.open("wb") as log:
        child = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            pass_fds=(lock.fileno(),),
        )
    threading.Thread(target=child.wait, daemon=True).start()  # so that no zombie stays
    return child.pid


def under_way(home: Home) -> list[str]:
    """Return the names of the environments that are being built in the background."""
    return sorted(path.stem.rpartition("-")[0] for path, _lock in running(home))


def is_under_way(framework: Framework, home: Home) -> bool:
    """Return whether the environment is being built in the background."""
    lock = Files(folder_of(framework, home)).lock
    return any(path == lock for path, _lock in running(home))


def followed(framework: Framework, home: Home, say: Callable[[str], None]) -> Ready | Failed:
    """Return the environment, or why it can't be built, once that is known; `say` gets each line
    of the build, whoever asked for it first.
    """
    since_ms, log, heard = to_ms(SystemClock().now()), Files(folder_of(framework, home)).log, 0
    while True:
        found = wanted(framework, home, since_ms)
        texts, heard = read_on(log, heard)
        for text in texts:
            say(text)
        if not isinstance(found, Building):
            return found
        time.sleep(LOOK_AGAIN_S)


def read_on(log: Path, start: int) -> tuple[list[str], int]:
    """Return the texts of a log's whole lines from a place on, and where they end.

    It may have been started again meanwhile.
    """
    try:
        with log.open("rb") as file:
            file.seek(start if start <= os.fstat(file.fileno()).st_size else 0)
            begun, data = file.tell(), file.read(MOST_READ)
    except FileNotFoundError:
        return [], 0
    texts, length = log_lines.texts(data)
    return texts, begun + length


def stop(home: Home, framework: Framework | None = None) -> None:
    """Ask the build of an environment, or each that runs in the background, to end; it removes
    what it has made so far.
    """
    only = None if framework is None else Files(folder_of(framework, home)).lock
    for path, lock in running(home):
        if only is not None and path != only:
            continue
        pid = said_of(lock).get("pid")
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)


def running(home: Home) -> Iterator[tuple[Path, IO[str]]]:
    """Yield the lock files that are locked."""
    for path in sorted(home.environments.glob("*.building")):
        with path.open() as lock:
            if not taken(lock, fcntl.LOCK_SH):
                yield path, lock


def taken(lock: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock, which closing the file frees; False when another has it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def failure(framework: Framework, home: Home) -> Failed | None:
    """Return why the last build failed, if it did."""
    files = Files(folder_of(framework, home))
    try:
        kept = json.loads(files.failed.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Failed(kept["reason"], tuple(kept["lines"]), kept["at_ms"])


def fail(files: Files, reason: str, lines: tuple[str, ...]) -> None:
    """Write down that the build failed, now."""
    at_ms = to_ms(SystemClock().now())
    write_json(files.failed, {"reason": reason, "lines": list(lines), "at_ms": at_ms})


def starts_of(lock: IO[str]) -> int:
    """Return how many processes were started and did not live to say how it ended."""
    starts: int = said_of(lock).get("starts", 0)
    return starts


def said_of(lock: IO[str]) -> dict[str, Any]:
    """Return what a lock file says; nothing when it was just being written."""
    lock.seek(0)
    try:
        said: dict[str, Any] = json.loads(lock.read() or "{}")
    except ValueError:
        return {}
    return said


def say_of(lock: IO[str], content: dict[str, Any]) -> None:
    """Write over what a lock file says; whoever does it has the lock."""
    lock.seek(0)
    lock.truncate()
    json.dump(content, lock)
    lock.flush()
