"""What is set for buckets: their tags."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    compared = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "bucket_setting",
        sa.Column("bucket", compared, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
