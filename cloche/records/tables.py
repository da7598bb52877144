"""The tables, and the statements used so often that they are made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from cloche.records.store import Resource

metadata = sa.MetaData()

# One row for each named thing; only what lists filter or sort by is a column of its own.
resource = sa.Table(
    "resource",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("arn", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),  # milliseconds since 1970
    sa.Column("modified", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("wish", sa.Text, nullable=False),  # JSON
    sa.Column("document", sa.Text, nullable=False),  # JSON
    # An ARN names one resource: tags and permissions hang on it.
    sa.Index("resource_arn", "arn", unique=True),
    sa.Index("resource_status", "kind", "status", "created"),
    sa.Index("resource_created", "kind", "account", "region", "created", "name"),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("arn", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("event_arn", "arn", "id"),
)

GET = sa.select(resource).where(
    resource.c.kind == sa.bindparam("kind"),
    resource.c.account == sa.bindparam("account"),
    resource.c.region == sa.bindparam("region"),
    resource.c.name == sa.bindparam("name"),
)
FIND = sa.select(resource).where(resource.c.arn == sa.bindparam("arn"))


def key(of: Resource) -> sa.ColumnElement[bool]:
    """Return the condition that holds for the row of `of` while it is the newest."""
    c = resource.c
    return sa.and_(
        c.kind == of.kind,
        c.account == of.account,
        c.region == of.region,
        c.name == of.name,
        c.version == of.version,
    )


def same(of: Resource) -> sa.Update:
    """Return the UPDATE guarded by the version."""
    return resource.update().where(key(of))


def gone(of: Resource) -> sa.Delete:
    """Return the DELETE guarded by the version."""
    return resource.delete().where(key(of))
