"""Policies are enforced: execution roles that were made before get AmazonS3FullAccess, too.

A new one has it from the start. It is given once: who detaches it later has it no more.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLE = "%:role/service-role/AmazonSageMaker-ExecutionRole-%"
SAGEMAKER = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
S3 = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
MOST = 10  # policies attached to a role


def upgrade() -> None:
    """Attach it where AmazonSageMakerFullAccess is still attached."""
    connection = op.get_bind()
    resource = sa.table("resource", *(sa.column(name) for name in ("kind", "arn", "document")))
    roles = sa.select(resource.c.arn, resource.c.document).where(
        resource.c.kind == "role", resource.c.arn.like(ROLE)
    )
    for arn, text in connection.execute(roles).all():
        document = json.loads(text)
        attached = document.get("Policies", [])
        if SAGEMAKER not in attached or S3 in attached or len(attached) >= MOST:
            continue
        changed = json.dumps({**document, "Policies": [*attached, S3]})
        connection.execute(
            sa.update(resource).where(resource.c.arn == arn).values(document=changed)
        )
