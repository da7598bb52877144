"""The home folder as a whole: its format, who holds it, and the server that is up."""

import fcntl
import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from msgspec import UNSET, UnsetType

from cloche.core.atomic import write_json
from cloche.core.config import ENGINES, Config, Home
from cloche.core.private import OPEN_TO_OTHERS, NotPrivate, check_way, private_folder
from cloche.core.typed import BadRecord, Record, decode, encode

FORMAT = 2  # grows when an older Cloche could not read the home folder any more
DIES_WITHIN_S = 2.0  # a killed server: its memory is given back first
LEAST_FREE_MIB = 16  # below this a server would start only to fail at its first writes


class HomeError(Exception):
    """The home folder can't be used; the text says why and what to do."""


class Settings(Record, frozen=True, kw_only=True):
    """What a home folder was made with, for good."""

    format: int
    version: str  # of the Cloche that made it
    account: str
    region: str


class Choices(Record, frozen=True, kw_only=True):
    """The options of `cloche up` that the next one uses again: fields of Config."""

    host: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    region: str | UnsetType = UNSET
    engine: str | UnsetType = UNSET
    allow_egress: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    public_buckets: tuple[str, ...] = ()
    pass_foreign_keys: bool | UnsetType = UNSET
    gpu_instances: str | UnsetType = UNSET

    def options(self) -> dict[str, Any]:
        """Return those that are there, as fields of Config."""
        found = {name: getattr(self, name) for name in KEPT}
        return {name: value for name, value in found.items() if value is not UNSET}


KEPT = tuple(name for name in Choices.__struct_fields__ if name != "unknown")


class Server(Record, frozen=True, kw_only=True):
    """The server that is up, or was when it was killed. While its parent starts it again, the one
    that died: its address is the next one's too, and connections wait there.
    """

    pid: int
    address: str
    proxy: str
    version: str
    started: str  # ISO 8601
    log: str | None = None  # where a detached server writes
    parent: int | None = None  # the pid of what starts it again when it dies
    restarts: int = 0  # how often that was
    ended: str | None = None  # how the one before it ended


class OwnerKeys(Record, frozen=True, kw_only=True):
    """Root's key pair, the role that users' scripts act as, and the owner's token."""

    account: str
    region: str
    access_key_id: str
    secret_access_key: str
    role_arn: str
    token: str  # for what is under /_cloche/


def default_path() -> Path:
    """Return the home folder that is used when none is named: $CLOCHE_HOME or ~/.cloche."""
    named = os.environ.get("CLOCHE_HOME")
    return Path(named).absolute() if named else Path.home() / ".cloche"


def read_settings(home: Home) -> Settings | None:
    """Return the home folder's settings; None for a new one; HomeError for a newer version's."""
    secure_if_made(home)
    try:
        kept = json.loads(settings_file(home).read_text())
        if (found := kept["format"]) > FORMAT:
            raise HomeError(
                f"{home.path} was made by a newer Cloche ({kept.get('version')}, format {found}; "
                f"this one reads {FORMAT}). Nothing was changed. Update Cloche, or choose another "
                "--home."
            )
        return decode(Settings, kept, settings_file(home).name)
    except (FileNotFoundError, NotADirectoryError):
        if home.database.exists():
            raise HomeError(
                f"{home.path} has records but no {settings_file(home).name}, so its version is "
                "not known. Nothing was changed."
            ) from None
        return None
    except (BadRecord, ValueError, KeyError, TypeError, PermissionError) as error:
        raise HomeError(
            f"{settings_file(home)} can't be read ({error}). Nothing was changed."
        ) from None


def write_settings(home: Home, settings: Settings) -> None:
    """Keep the settings of a home folder that is new, or that this Cloche brings to its format."""
    write_json(settings_file(home), encode(settings))


def read_choices(home: Home) -> dict[str, Any]:
    """Return the options of the last `up`, as fields of Config; HomeError when it can't be read."""
    kept = kept_choices(home)
    return {} if kept is None else kept.options()


def kept_choices(home: Home) -> Choices | None:
    """Return what is kept of the options, None when nothing is; HomeError when it can't be read."""
    path = home.choices
    try:
        kept = decode(Choices, json.loads(path.read_text()), path.name)
        if kept.engine is not UNSET and kept.engine not in ENGINES:
            raise ValueError(f"there is no engine {kept.engine!r}")
        return kept
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (BadRecord, ValueError, OSError) as error:
        raise HomeError(
            f"{path}, which has the options of the last `cloche up`, can't be read ({error}). "
            "Remove it, and give the options again: cloche up --port …"
        ) from None


def write_choices(config: Config) -> None:
    """Keep the options of `up`, for the next one."""
    kept = kept_choices(config.home) or Choices()
    new = kept.replace(**{name: getattr(config, name) for name in KEPT})
    write_json(config.home.choices, encode(new))


def prepare(home: Home) -> None:
    """Make the folder if need be, for this user alone; HomeError when that can't be, or it can't
    be written, or the disk is full.
    """
    try:
        check_way(home.path)
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except NotPrivate as error:
        raise HomeError(str(error)) from None
    except OSError as error:
        raise HomeError(f"{home.path} can't be made: {error.strerror}") from None
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise HomeError(
            f"{home.path} can't be written by this user. Choose another --home, or change it."
        )
    secure(home)
    free_mib = shutil.disk_usage(home.path).free // 2**20
    if free_mib < LEAST_FREE_MIB:
        raise HomeError(
            f"The disk of {home.path} is full: {free_mib} MiB are free, {LEAST_FREE_MIB} are "
            "needed. Nothing was changed."
        )


def secure(home: Home) -> int | None:
    """Close the home folder to all other users; HomeError when that can't be: another owner, a
    link of another user's, a file system without modes.

    Returns the mode of one that was open until now and had records; None for all others.
    """
    try:
        had = private_folder(home.path)
        return had if had & OPEN_TO_OTHERS and home.database.exists() else None
    except NotPrivate as error:
        raise HomeError(str(error)) from None
    except PermissionError:
        raise HomeError(f"{home.path} is another user's home folder") from None


def secure_if_made(home: Home) -> int | None:
    """As `secure`, for a folder that is a home folder by now: no other that was named by mistake
    is touched.
    """
    try:
        made = settings_file(home).exists() or home.server.exists() or home.database.exists()
    except PermissionError:
        raise HomeError(f"{home.path} is another user's home folder") from None
    return secure(home) if made else None


class Lock:
    """Held by the one server that uses a home folder, and by its parent; the kernel frees it when
    both have died.
    """

    def __init__(self, home: Home) -> None:
        self.path = home.path / "lock"
        self.file: IO[str] | None = None

    def take(self) -> bool:
        """Take the lock; False when another process holds it, and does not die meanwhile."""
        file = self.path.open("a")
        deadline = time.monotonic() + DIES_WITHIN_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.close()
                    return False
                time.sleep(0.02)
            else:
                self.file = file
                return True

    def adopt(self, descriptor: int) -> None:
        """Hold the lock by a descriptor of who took it."""
        self.file = os.fdopen(descriptor, "a")

    def fileno(self) -> int:
        """Return the descriptor that holds the lock."""
        if self.file is None:
            raise ValueError(f"{self.path} is not held")
        return self.file.fileno()

    def release(self) -> None:
        """Let go of it; others can take it once nobody holds it."""
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
    server = last_server(home)
    # After a kill -9 the file is there and the lock is free.
    return server if server is not None and is_held(home) else None


def last_server(home: Home) -> Server | None:
    """Return the server that is up, or that did not end in order; None after one that did."""
    secure_if_made(home)
    try:
        return decode(Server, json.loads(home.server.read_text()), home.server.name)
    except (BadRecord, FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except PermissionError:
        raise HomeError(f"{home.path} is another user's home folder") from None


def write_server(home: Home, server: Server) -> None:
    """Say that the server is up."""
    write_json(home.server, encode(server))


def write_owner_keys(home: Home, keys: OwnerKeys) -> None:
    """Leave the owner's keys, for this user alone."""
    write_json(home.credentials, encode(keys))


def settings_file(home: Home) -> Path:
    """Return where the settings are kept."""
    return home.path / "home.json"


def started_at(server: Server) -> datetime:
    """Return when the server came up."""
    return datetime.fromisoformat(server.started)
