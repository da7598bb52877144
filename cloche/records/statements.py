"""Statements compiled once and run on the driver's own connection.

SQLAlchemy's execution costs 50 to 100 microseconds a statement, the driver's 5. The statements
that every request runs are therefore built with SQLAlchemy, compiled once for a dialect, and run
below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CompiledSql:
    """A statement for one dialect; `names` in the order of its places, None: by name.

    `literals` are parameters that the statement brings with it.
    """

    sql: str
    names: tuple[str, ...] | None
    literals: Mapping[str, object]


class PreparedStatement:
    """A statement with named parameters (`sa.bindparam`), or an INSERT of whole rows.

    Values go to the driver as they are: texts, integers, floats and None. The driver's own
    exceptions come out (`connection.dialect.loaded_dbapi.IntegrityError`).
    """

    def __init__(self, statement: sa.sql.ClauseElement) -> None:
        self.statement = statement
        self.compiled: dict[str, CompiledSql] = {}

    def rows(self, connection: Connection, values: Mapping[str, object]) -> list[Row]:
        """Return all rows of a query as tuples, in the order of its columns."""
        cursor = self._cursor(connection, values)
        rows: list[Row] = cursor.fetchall()
        return rows

    def row(self, connection: Connection, values: Mapping[str, object]) -> Row | None:
        """Return the one row of a query, or None."""
        rows = self.rows(connection, values)
        return rows[0] if rows else None

    def run(self, connection: Connection, values: Mapping[str, object]) -> int:
        """Run a change; return how many rows it concerned."""
        count: int = self._cursor(connection, values).rowcount
        return count

    def _cursor(self, connection: Connection, values: Mapping[str, object]) -> Any:
        made = self.compiled.get(connection.dialect.name) or self._compile(connection)
        cursor = connection.connection.cursor()
        if made.literals:
            values = {**made.literals, **values}
        if made.names is None:
            cursor.execute(made.sql, values)
        else:
            cursor.execute(made.sql, tuple([values[name] for name in made.names]))
        return cursor

    def _compile(self, connection: Connection) -> CompiledSql:
        compiled = self.statement.compile(dialect=connection.dialect)
        names = getattr(compiled, "positiontup", None)
        literals = {name: value for name, value in compiled.params.items() if value is not None}
        made = CompiledSql(str(compiled), tuple(names) if names is not None else None, literals)
        self.compiled[connection.dialect.name] = made
        return made
