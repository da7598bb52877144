"""The tables of the first version."""

from alembic import op

from cloche.records import metrics

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    # The metadata of every table: importing the metrics' module adds its own to it.
    metrics.metric.metadata.create_all(op.get_bind())
