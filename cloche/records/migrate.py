"""Bringing the schema to the newest version, by alembic.

A module of its own, loaded where there is something to do: alembic takes a tenth of a start.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from cloche.records.database import MIGRATIONS, SecretSink


def run(connection: Connection, secrets: SecretSink) -> None:
    """Make every change that is newer than the database, within the caller's transaction.

    Secrets that older versions kept among the records go to `secrets`.
    """
    config = migrations()
    config.attributes["connection"] = connection
    config.attributes["secrets"] = secrets
    command.upgrade(config, "head")


def migrations() -> Config:
    """Return alembic's settings: where the migrations lie."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
