"""Buckets' policies in memory: compiled once, never an old one, never too many."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from cloche.core.authorization import PolicyKind, ResourcePolicy
from cloche.core.clock import ManualClock
from cloche.records import objects as rows
from cloche.records.store import Store
from cloche.services.s3 import S3, BucketPolicies, bucket_policies

ACCOUNT = "111122223333"
POLICY = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}


class World:
    """A bucket, and what was compiled of its policies."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(folder / "cloche.db", ManualClock())
        self.s3 = S3(self.store, folder / "blobs")
        self.compiled: list[str] = []
        self.policies = BucketPolicies(self.s3, self.compile)

    def compile(self, name: str, policy: Mapping[str, Any], kind: PolicyKind) -> str:
        assert kind == "resource-based policy"
        self.compiled.append(name)
        return json.dumps(policy)

    def find(self, arn: str = "arn:aws:s3:::mine") -> ResourcePolicy[str] | None:
        return self.policies.resource_policy(arn)

    async def put(self, document: object, kind: str = "policy", bucket: str = "mine") -> None:
        def change(connection: Connection) -> None:
            text = None if document is None else json.dumps(document)
            rows.set_bucket_setting(connection, bucket, kind, text)

        await self.s3.configure(bucket, change)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.s3.create_bucket("mine", ACCOUNT, "us-east-1")
    yield world
    world.s3.close()
    world.store.close()


async def test_the_bucket_of_a_resource(world: World) -> None:
    await world.put(POLICY)
    for arn in ("arn:aws:s3:::mine", "arn:aws:s3:::mine/a/b", "arn:aws:s3:::mine/"):
        found = world.find(arn)
        assert found is not None and (found.account, found.policy) == (ACCOUNT, json.dumps(POLICY))
    for arn in ("*", "arn:aws:s3:::min", "arn:aws:s3:::mine-too", "arn:aws:sns:us-east-1:1:mine"):
        assert world.find(arn) is None
    assert world.compiled == ["bucket-policy/mine"] * 2  # once for others: it is public


async def test_compiled_once_until_it_changes(world: World) -> None:
    first = world.find()
    assert first is not None and first.policy is None and first.for_others is None
    await world.put(POLICY)
    second = world.find()
    assert second is not None and second is world.find() and second.policy == json.dumps(POLICY)
    assert second.for_others is not None and "[]" in second.for_others  # public, and restricted
    await world.put(None, "public-access-block")
    await world.put({"RestrictPublicBuckets": False}, "public-access-block")
    third = world.find()
    assert third is not None and third.for_others == third.policy
    await world.put(None)
    gone = world.find()
    assert gone is not None and gone.policy is None


async def test_a_policy_that_was_read_before_a_change_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread reads, the bucket changes, then the thread keeps what it read."""
    await world.put(POLICY)
    read = world.policies.read

    def slow(connection: Connection, bucket: str) -> ResourcePolicy[str] | None:
        made = read(connection, bucket)
        world.policies.forget(bucket)
        return made

    monkeypatch.setattr(world.policies, "read", slow)
    assert world.find() is not None and world.policies.known == {}
    monkeypatch.setattr(world.policies, "read", read)
    assert world.find() is not None and list(world.policies.known) == ["mine"]


async def test_no_more_are_kept_than_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_policies, "KEPT", 3)
    for number in range(10):
        await world.s3.create_bucket(f"b{number}", ACCOUNT, "us-east-1")
        assert world.find(f"arn:aws:s3:::b{number}") is not None
        assert world.find(f"arn:aws:s3:::not-there-{number}") is None
        assert 1 <= len(world.policies.known) <= 3
