"""Secrets that must be kept in clear, apart from the records: a database of its own, mode 0600.

Whoever signs must have the key itself: secret access keys, session tokens, the local authority's
private key. They lie here and nowhere else, so that a copy of the records, a dump or a query shows
none. As durable as the records; what is deleted is overwritten.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloche.records.database import Readers, connect, private_database
from cloche.records.errors import NewerDatabase, NotADatabase
from cloche.records.statements import PreparedStatement
from cloche.records.writer import Write, Writer

SECRETS = "secrets.db"  # beside the records
VERSION = 1  # SQLite's user_version of the file; grows when the table changes

metadata = sa.MetaData()
secret = sa.Table(
    "secret",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
NAME: sa.BindParameter[str] = sa.bindparam("secret")
GET = PreparedStatement(sa.select(secret.c.value).where(secret.c.name == NAME))
DROP = PreparedStatement(sa.delete(secret).where(secret.c.name == NAME))
PUT = PreparedStatement(sa.insert(secret).prefix_with("OR REPLACE"))


class Secrets:
    """Named texts. Reads may be made on any thread; writes are durable when they return."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = connect(f"sqlite:///{path}", "secure_delete=ON")
        self.readers = Readers(self.engine)
        self.writer = Writer(self.engine)

    @classmethod
    def open(cls, path: Path) -> Secrets:
        """Open (or make) the database at `path`, for this user alone; NotPrivate if not so.

        NewerDatabase when a newer Cloche wrote it, NotADatabase when it is something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        private_database(path)
        made = look(path)
        secrets = cls(path)
        try:
            if not made:
                secrets._write_now(make)
        except BaseException:
            secrets.close()
            raise
        return secrets

    def close(self) -> None:
        """Write what waits, then close."""
        self.writer.close()
        self.readers.close()
        self.engine.dispose()

    def get(self, name: str) -> str | None:
        """Return a secret, or None."""
        row = GET.row(self.readers.get(), {"secret": name})
        return None if row is None else str(row[0])

    def names(self) -> list[str]:
        """Return the names of all."""
        return list(self.readers.get().execute(sa.select(secret.c.name)).scalars())

    async def put(self, values: Mapping[str, str]) -> None:
        """Keep these, over what has their names."""
        await self._write(lambda connection: put_in(connection, values))

    def put_now(self, values: Mapping[str, str]) -> None:
        """As `put`, for threads without an event loop."""
        self._write_now(lambda connection: put_in(connection, values))

    async def drop(self, names: Sequence[str]) -> None:
        """Forget these; what is not there is fine."""
        await self._write(lambda connection: drop_in(connection, names))

    async def _write(self, change: Callable[[Connection], None]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.writer.put(Write(change, future, loop))
        await future

    def _write_now(self, change: Callable[[Connection], None]) -> None:
        future: Future[None] = Future()
        self.writer.put(Write(change, future, None))
        future.result()


def look(path: Path) -> bool:
    """Return whether the database is made, before anything is changed in it.

    NewerDatabase, NotADatabase when it is another one.
    """
    if path.stat().st_size == 0:
        return False
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        raise NotADatabase(path, str(error)) from error
    finally:
        connection.close()
    if version > VERSION:
        raise NewerDatabase(path, str(version))
    if version < VERSION and tables:
        raise NotADatabase(path, "it holds other tables")
    return bool(version == VERSION)


def make(connection: Connection) -> None:
    """Make the table in a new database."""
    metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def put_in(connection: Connection, values: Mapping[str, str]) -> None:
    """Write the rows."""
    for name, value in values.items():
        PUT.run(connection, {"name": name, "value": value})


def drop_in(connection: Connection, names: Sequence[str]) -> None:
    """Delete the rows."""
    for name in names:
        DROP.run(connection, {"secret": name})
