"""Opening a database: connections, and the schema brought to the newest version."""

import importlib
import os
import sqlite3
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloche.core.private import private_file
from cloche.records.errors import NewerDatabase, NotADatabase

MIGRATIONS = Path(__file__).parent / "migrations"
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=10000",
    "foreign_keys=ON",
)
# SQLite's user_version of a database whose free pages still hold secrets that were moved.
UNSCRUBBED = 1


class SecretSink(Protocol):
    """Where migrations put secrets (`records.secrets`)."""

    def put_now(self, values: Mapping[str, str]) -> None:
        """Keep these; durable when it returns."""


def connect(url: str, *pragmas: str) -> Engine:
    """Return an engine; for SQLite in WAL mode, durable, with transactions begun by us."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url)
    # A reading thread keeps its connection: a pool would only limit the number of threads.
    engine = sa.create_engine(
        url, poolclass=sa.pool.NullPool, connect_args={"check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (*PRAGMAS, *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def private_database(path: Path) -> None:
    """Make sure that only this user may open the file, and what SQLite keeps beside it."""
    private_file(path)
    for beside in ("-wal", "-shm", "-journal"):
        if os.path.lexists(f"{path}{beside}"):
            private_file(Path(f"{path}{beside}"))


class Readers:
    """A connection for reads for each thread that asks: every statement sees the newest commit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.local = threading.local()

    def get(self) -> Connection:
        """Return this thread's connection."""
        connection: Connection | None = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self.local.connection = connection
        return connection

    def close(self) -> None:
        """Close this thread's connection."""
        connection: Connection | None = getattr(self.local, "connection", None)
        if connection is not None:
            connection.close()
            del self.local.connection


def refuse_newer(path: Path) -> None:
    """Look at a SQLite file before anything is changed in it.

    NewerDatabase: its schema version is none that this Cloche knows. NotADatabase: it is
    something else. An empty or missing file is fine.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return
        if "alembic_version" not in tables:
            raise NotADatabase(path, "it holds other tables")
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.DatabaseError as error:
        raise NotADatabase(path, str(error)) from error
    finally:
        connection.close()
    for (version,) in rows:
        if version not in versions():
            raise NewerDatabase(path, version)


def upgrade(connection: Connection, secrets: SecretSink) -> None:
    """Bring the schema to the newest version, within a transaction of the caller's.

    Secrets that older versions kept among the records go to `secrets`.

    Quick where there is nothing to do: the version is read before alembic is set going.
    """
    if sa.inspect(connection).has_table("alembic_version"):
        (head,) = versions()[:1]
        if connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [(head,)]:
            return
    importlib.import_module("cloche.records.migrate").run(connection, secrets)


def scrub(engine: Engine) -> None:
    """Write the database again when a migration took secrets out of it: none stays in old pages,
    nor in the write-ahead log. One that was interrupted is done again by the next call.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.exec_driver_sql("PRAGMA user_version").scalar() != UNSCRUBBED:
            return
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("PRAGMA user_version = 0")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@cache
def versions() -> tuple[str, ...]:
    """Return the schema versions that this Cloche knows, newest first: their files are numbered."""
    found = (file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    return tuple(sorted(found, reverse=True))
