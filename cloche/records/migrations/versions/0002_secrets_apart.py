"""Secrets leave the records: keys and session tokens go to the store of the secrets.

That store is written first. A crash in between leaves them in both, and this is done again.
"""

import json

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS = ("access-key", "session")
SECRET = ("SecretAccessKey", "SessionToken")
UNSCRUBBED = 1  # records.database: free pages hold what was taken out


def upgrade() -> None:
    """Move them."""
    connection = op.get_bind()
    resource = sa.table(
        "resource", *(sa.column(name) for name in ("kind", "account", "region", "name", "document"))
    )
    found = connection.execute(sa.select(resource).where(resource.c.kind.in_(KINDS))).all()
    moved, kept = {}, []
    for kind, account, region, name, text in found:
        document = json.loads(text)
        moved[f"{kind}/{name}"] = json.dumps(
            {member: document.pop(member) for member in SECRET if member in document}
        )
        kept.append((kind, account, region, name, json.dumps(document)))
    if not found:
        return
    context.config.attributes["secrets"].put_now(moved)
    for kind, account, region, name, text in kept:
        connection.execute(
            sa.update(resource)
            .where(
                resource.c.kind == kind,
                resource.c.account == account,
                resource.c.region == region,
                resource.c.name == name,
            )
            .values(document=text)
        )
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {UNSCRUBBED}")
