"""The object store as a role sees it: each read and write is asked, and refused or done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder
from sqlalchemy.engine import Connection

from cloche.core.authorization import Actor, Authorizer, Refused
from cloche.core.clock import ManualClock
from cloche.core.errors import AwsError
from cloche.core.identity import Principal
from cloche.records import objects as rows
from cloche.records.store import Store
from cloche.services.iam import IssuedKeys, compiled
from cloche.services.s3 import S3, ActingS3, BucketPolicies

ACCOUNT = "123456789012"
ROLE = Principal(
    kind="assumed-role",
    account=ACCOUNT,
    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/r/SageMaker",
    user_id="AROA:SageMaker",
    role_arn=f"arn:aws:iam::{ACCOUNT}:role/r",
)
LIST, OBJECT = ("s3:ListBucket", "arn:aws:s3:::mine"), "arn:aws:s3:::mine/a/b"


@pytest.fixture
async def s3(tmp_path: Path) -> AsyncIterator[S3]:
    store = Store.open(tmp_path / "cloche.db", ManualClock())
    s3 = S3(store, tmp_path / "blobs")
    await s3.create_bucket("mine", ACCOUNT, "us-east-1")
    await s3.create_bucket("theirs", "999999999999", "us-east-1")
    for bucket in ("mine", "theirs"):
        await s3.put_bytes(bucket, "a/b", b"text")
    yield s3
    s3.close()
    store.close()


def acting(s3: S3, authorizer: Authorizer) -> ActingS3:
    return s3.acting_as(Actor(ROLE, authorizer, ManualClock().now))


async def everything(role: ActingS3, bucket: str, folder: Path, stored: Any) -> dict[str, Any]:
    """Return what each read and write gave, or the error that it raised."""
    (folder / "new").write_text("new")

    async def link() -> bytes:
        (folder / "link").unlink(missing_ok=True)
        role.link(stored, folder / "link")
        return (folder / "link").read_bytes()

    async def found() -> Any:
        return role.find(bucket, "a/b")

    async def listed() -> Any:
        return [one.key for one in role.list(bucket, "a/")]

    async def content() -> Any:
        return role.content(stored).read_bytes()

    done: dict[str, Any] = {}
    for name, work in {
        "find": found,
        "list": listed,
        "content": content,
        "link": link,
        "bytes": lambda: role.put_bytes(bucket, "a/c", b"c"),
        "file": lambda: role.put_file(bucket, "a/d", folder / "new", None, "arn:aws:kms:::key/k"),
        "once": lambda: role.put_once(bucket, "a/e", folder / "new", "", 3),
    }.items():
        try:
            done[name] = await work()
        except AwsError as error:
            done[name] = error
    return done


async def test_each_read_and_write_is_asked(s3: S3, tmp_path: Path) -> None:
    recorder = Recorder()
    done = await everything(acting(s3, recorder), "mine", tmp_path, s3.find("mine", "a/b"))
    assert done["find"].key == "a/b" and done["list"] == ["a/b"]
    assert done["content"] == done["link"] == b"text"
    assert [one.key for one in s3.list("mine")] == ["a/b", "a/c", "a/d", "a/e"]
    asked = recorder.questions()
    assert [(question.action, question.resource) for question in asked] == [
        ("s3:GetObject", OBJECT),
        LIST,
        ("s3:GetObject", OBJECT),
        ("s3:GetObject", OBJECT),
        ("s3:PutObject", "arn:aws:s3:::mine/a/c"),
        ("s3:PutObject", "arn:aws:s3:::mine/a/d"),
        ("s3:PutObject", "arn:aws:s3:::mine/a/e"),
    ]
    assert {question.principal for question in asked} == {ROLE}
    assert asked[1].context["s3:prefix"] == "a/"
    assert asked[5].context["s3:x-amz-server-side-encryption-aws-kms-key-id"] == (
        "arn:aws:kms:::key/k"
    )
    assert {question.context["aws:resourceaccount"] for question in asked} == {ACCOUNT}
    assert {question.context["aws:principalarn"] for question in asked} == {ROLE.role_arn}


async def test_nothing_is_read_or_written_that_was_refused(s3: S3, tmp_path: Path) -> None:
    recorder = Recorder({"s3:GetObject", "s3:PutObject", "s3:ListBucket"})
    done = await everything(acting(s3, recorder), "mine", tmp_path, s3.find("mine", "a/b"))
    assert all(isinstance(each, Refused) for each in done.values()), done
    assert str(done["find"]) == (
        f'User: {ROLE.arn} is not authorized to perform: s3:GetObject on resource: "{OBJECT}" '
        "because no identity-based policy allows the s3:GetObject action"
    )
    assert [one.key for one in s3.list("mine")] == ["a/b"] and not (tmp_path / "link").exists()


async def test_what_is_missing_is_told_to_who_may_list(s3: S3) -> None:
    recorder = Recorder()
    role = acting(s3, recorder)
    assert role.find("mine", "no") is None
    assert recorder.take() == [("s3:GetObject", "arn:aws:s3:::mine/no"), LIST]
    recorder.denied.add("s3:ListBucket")
    with pytest.raises(Refused, match="s3:ListBucket"):
        role.find("mine", "no")


async def test_another_accounts_bucket_is_refused(s3: S3, tmp_path: Path) -> None:
    policies = BucketPolicies(s3, compiled)
    role = acting(s3, IssuedKeys(policies.resource_policy))
    done = await everything(role, "theirs", tmp_path, s3.find("theirs", "a/b"))
    assert {str(each) for each in done.values()} == {"Access Denied"}
    assert [one.key for one in s3.list("theirs")] == ["a/b"]


async def test_another_accounts_bucket_is_used_as_its_policy_allows(s3: S3, tmp_path: Path) -> None:
    policies = BucketPolicies(s3, compiled)
    role = acting(s3, IssuedKeys(policies.resource_policy))
    statement = {"Effect": "Allow", "Principal": {"AWS": ROLE.role_arn}, "Action": "s3:GetObject"}
    policy = {"Statement": [{**statement, "Resource": "arn:aws:s3:::theirs/*"}]}

    def change(connection: Connection) -> None:
        rows.set_bucket_setting(connection, "theirs", "policy", json.dumps(policy))

    await s3.configure("theirs", change)
    done = await everything(role, "theirs", tmp_path, s3.find("theirs", "a/b"))
    assert done["find"].key == "a/b" and done["content"] == done["link"] == b"text"
    refused = {name for name, each in done.items() if isinstance(each, AwsError)}
    assert refused == {"list", "bytes", "file", "once"}
    assert [one.key for one in s3.list("theirs")] == ["a/b"]
