"""The tables."""

import sqlalchemy as sa

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
    sa.Column("desired", sa.Text, nullable=False),  # JSON
    sa.Column("document", sa.Text, nullable=False),  # JSON
    # An ARN names one resource: tags and permissions hang on it.
    sa.Index("resource_arn", "arn", unique=True),
    sa.Index("resource_status", "kind", "status", "created"),
    sa.Index("resource_created", "kind", "account", "region", "created", "name"),
)

# Keys are compared byte by byte, as S3 orders them. SQLite does so by itself.
S3Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

bucket = sa.Table(
    "bucket",
    metadata,
    # One namespace for all accounts and regions, as on AWS.
    sa.Column("name", S3Key, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)

# What was set for a bucket, by kind ("tags"); no row where it has what a new bucket has.
bucket_setting = sa.Table(
    "bucket_setting",
    metadata,
    sa.Column("bucket", S3Key, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

# One row for each object; `blob` names the file of its content, which no other row names.
object_ = sa.Table(
    "object",
    metadata,
    sa.Column("bucket", S3Key, primary_key=True),
    sa.Column("key", S3Key, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),  # without quotes
    sa.Column("modified", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

upload = sa.Table(
    "upload",
    metadata,
    sa.Column("bucket", S3Key, primary_key=True),
    sa.Column("key", S3Key, primary_key=True),
    sa.Column("id", S3Key, primary_key=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),  # JSON
    sa.Column("initiator", sa.Text, nullable=False),  # ARN
    sqlite_with_rowid=False,
)

part = sa.Table(
    "part",
    metadata,
    sa.Column("upload", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("modified", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.Text, nullable=False),
    sa.Column("checksums", sa.Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)
