"""The home folder as a whole: its format, who holds it, and the server that is up."""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cloche.core.config import Home

FORMAT = 1  # grows when an older Cloche could not read the home folder any more
LEAST_FREE_MIB = 16  # below this a server would start only to fail at its first writes


class HomeError(Exception):
    """The home folder can't be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a home folder was made with, for good."""

    format: int
    version: str  # of the Cloche that made it
    account: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server that is up, or was when it was killed."""

    pid: int
    address: str
    proxy: str
    version: str
    started: str  # ISO 8601
    log: str | None = None  # where a detached server writes


def default_path() -> Path:
    """Return the home folder that is used when none is named: $CLOCHE_HOME or ~/.cloche."""
    named = os.environ.get("CLOCHE_HOME")
    return Path(named).absolute() if named else Path.home() / ".cloche"


def read_settings(home: Home) -> Settings | None:
    """Return the home folder's settings; None for a new one; HomeError for a newer version's."""
    try:
        kept = json.loads(settings_file(home).read_text())
        found = int(kept["format"])
    except (FileNotFoundError, NotADirectoryError):
        if home.database.exists():
            raise HomeError(
                f"{home.path} has records but no {settings_file(home).name}, so its version is "
                "not known. Nothing was changed."
            ) from None
        return None
    except (ValueError, KeyError, TypeError, PermissionError) as error:
        raise HomeError(
            f"{settings_file(home)} can't be read ({error}). Nothing was changed."
        ) from None
    if found > FORMAT:
        raise HomeError(
            f"{home.path} was made by a newer Cloche ({kept.get('version')}, format {found}; this "
            f"one reads {FORMAT}). Nothing was changed. Update Cloche, or choose another --home."
        )
    return Settings(
        format=found, version=kept["version"], account=kept["account"], region=kept["region"]
    )


def write_settings(home: Home, settings: Settings) -> None:
    """Keep the settings of a new home folder."""
    write_json(settings_file(home), asdict(settings))


def prepare(home: Home) -> None:
    """Make the folder if need be; HomeError when it can't be written or the disk is full."""
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise HomeError(f"{home.path} can't be made: {error.strerror}") from None
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise HomeError(
            f"{home.path} can't be written by this user. Choose another --home, or change it."
        )
    free_mib = shutil.disk_usage(home.path).free // 2**20
    if free_mib < LEAST_FREE_MIB:
        raise HomeError(
            f"The disk of {home.path} is full: {free_mib} MiB are free, {LEAST_FREE_MIB} are "
            "needed. Nothing was changed."
        )


class Lock:
    """Held by the one server that uses a home folder; the kernel frees it when that one dies."""

    def __init__(self, home: Home) -> None:
        self.path = home.path / "lock"
        self.file: IO[str] | None = None

    def take(self) -> bool:
        """Take the lock; False when another process holds it."""
        file = self.path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self.file = file
        return True

    def release(self) -> None:
        """Let others take it."""
        if self.file is not None:
            self.file.close()
            self.file = None


def is_held(home: Home) -> bool:
    """Return whether a server uses the home folder now."""
    try:
        # To ask takes no right to write.
        with (home.path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def read_server(home: Home) -> Server | None:
    """Return the server that is up; None when none is, or it has not come up yet."""
    try:
        server = Server(**json.loads(home.server.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    except PermissionError:
        raise HomeError(f"{home.path} is another user's home folder") from None
    # After a kill -9 the file is there and the lock is free.
    return server if is_held(home) else None


def write_server(home: Home, server: Server) -> None:
    """Say that the server is up."""
    write_json(home.server, asdict(server))


def write_json(path: Path, content: Mapping[str, Any], mode: int = 0o644) -> None:
    """Put a file in place whole and durably: no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def settings_file(home: Home) -> Path:
    """Return where the settings are kept."""
    return home.path / "home.json"


def started_at(server: Server) -> datetime:
    """Return when the server came up."""
    return datetime.fromisoformat(server.started)
