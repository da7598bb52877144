"""Execution roles from before policies were enforced get AmazonS3FullAccess, once."""

import json
from pathlib import Path

import pytest
from alembic import command

from cloche.core.clock import ManualClock
from cloche.records import database, migrate
from cloche.records.store import Store

ACCOUNT = "123456789012"
AWS = "arn:aws:iam::aws:policy/"
SAGEMAKER, S3 = f"{AWS}AmazonSageMakerFullAccess", f"{AWS}AmazonS3FullAccess"
EXECUTION = (
    f"arn:aws:iam::{ACCOUNT}:role/service-role/AmazonSageMaker-ExecutionRole-20261101T000000"
)
OWN = f"arn:aws:iam::{ACCOUNT}:role/AmazonSageMaker-ExecutionRole-own"


def older(path: Path, arn: str, policies: list[str]) -> None:
    """Make a database as it was before, with one role."""
    engine = database.connect(f"sqlite:///{path}")
    document = json.dumps({"RoleName": "r", "RoleId": "AROA1", "Policies": policies})
    with engine.begin() as connection:
        config = migrate.migrations()
        config.attributes["connection"] = connection
        config.attributes["secrets"] = None
        command.upgrade(config, "0004")
        connection.exec_driver_sql(
            f"INSERT INTO resource VALUES ({','.join('?' * 11)})",
            ("role", ACCOUNT, "", "r", arn, "", 0, 0, 1, "{}", document),
        )
    engine.dispose()


@pytest.mark.parametrize(
    ("arn", "before", "after"),
    [
        (EXECUTION, [SAGEMAKER], [SAGEMAKER, S3]),
        (EXECUTION, [S3, SAGEMAKER], [S3, SAGEMAKER]),
        (EXECUTION, [], []),  # its owner took away what it had
        (OWN, [SAGEMAKER], [SAGEMAKER]),  # a role that somebody made
        (EXECUTION, [SAGEMAKER, *"abcdefghi"], [SAGEMAKER, *"abcdefghi"]),  # no more fit
    ],
)
async def test_it_is_given_once(
    tmp_path: Path, arn: str, before: list[str], after: list[str]
) -> None:
    path = tmp_path / "cloche.db"
    older(path, arn, before)
    store = Store.open(path, ManualClock())
    role = store.find(arn)
    assert role is not None and list(role.document["Policies"]) == after
    await store.update(role, document={**role.document, "Policies": [SAGEMAKER]})
    store.close()
    store = Store.open(path, ManualClock())
    role = store.find(arn)
    assert role is not None and list(role.document["Policies"]) == [SAGEMAKER]
    store.close()
