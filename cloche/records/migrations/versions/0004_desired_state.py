"""What a client asked for is called the desired state; events, which nothing read, go."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column in place, and drop the table."""
    op.alter_column("resource", "wish", new_column_name="desired")
    op.drop_table("event")
