"""The tables of the first version."""

from alembic import op

from cloche.records import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    tables.metadata.create_all(op.get_bind())
