"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    make_resources()
    make_objects()
    make_uploads()
    make_metrics()


def text(name: str) -> "sa.Column[str]":
    """Return a column of texts."""
    return sa.Column(name, sa.Text, nullable=False)


def whole(name: str) -> "sa.Column[int]":
    """Return a column of whole numbers: sizes, times."""
    return sa.Column(name, sa.BigInteger, nullable=False)


def key(name: str) -> "sa.Column[str]":
    """Return a column of texts that are compared byte by byte."""
    compared = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, compared, nullable=False)


def make_resources() -> None:
    """Make resources and their events."""
    op.create_table(
        "resource",
        text("kind"),
        text("account"),
        text("region"),
        text("name"),
        text("arn"),
        text("status"),
        whole("created"),
        whole("modified"),
        sa.Column("version", sa.Integer, nullable=False),
        text("wish"),
        text("document"),
        sa.PrimaryKeyConstraint("kind", "account", "region", "name"),
    )
    op.create_index("resource_arn", "resource", ["arn"], unique=True)
    op.create_index("resource_status", "resource", ["kind", "status", "created"])
    op.create_index(
        "resource_created", "resource", ["kind", "account", "region", "created", "name"]
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        text("arn"),
        whole("at"),
        text("status"),
        text("message"),
    )
    op.create_index("event_arn", "event", ["arn", "id"])


def make_objects() -> None:
    """Make buckets and objects."""
    op.create_table(
        "bucket",
        key("name"),
        text("account"),
        text("region"),
        whole("created"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "object",
        key("bucket"),
        key("key"),
        whole("size"),
        text("etag"),
        whole("modified"),
        text("blob"),
        text("document"),
        sa.PrimaryKeyConstraint("bucket", "key"),
        sqlite_with_rowid=False,
    )


def make_uploads() -> None:
    """Make uploads and their parts."""
    op.create_table(
        "upload",
        key("bucket"),
        key("key"),
        key("id"),
        whole("created"),
        text("document"),
        text("initiator"),
        sa.PrimaryKeyConstraint("bucket", "key", "id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "part",
        text("upload"),
        sa.Column("number", sa.Integer, nullable=False),
        whole("size"),
        text("etag"),
        whole("modified"),
        text("blob"),
        text("checksums"),
        sa.PrimaryKeyConstraint("upload", "number"),
        sqlite_with_rowid=False,
    )


def make_metrics() -> None:
    """Make metrics and their datapoints."""
    op.create_table(
        "metric",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        text("account"),
        text("region"),
        text("namespace"),
        text("name"),
        text("dimensions"),
        whole("last"),
    )
    op.create_index(
        "metric_identity",
        "metric",
        ["account", "region", "namespace", "name", "dimensions"],
        unique=True,
    )
    op.create_table(
        "datapoint",
        sa.Column("metric", sa.Integer, nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        whole("at"),
        text("unit"),
        sa.Column("count", sa.Float, nullable=False),
        sa.Column("total", sa.Float, nullable=False),
        sa.Column("minimum", sa.Float, nullable=False),
        sa.Column("maximum", sa.Float, nullable=False),
        sa.Column("samples", sa.Text),
        sa.PrimaryKeyConstraint("metric", "period", "at", "unit"),
        sqlite_with_rowid=False,
    )
    op.create_index("datapoint_age", "datapoint", ["period", "at"])
