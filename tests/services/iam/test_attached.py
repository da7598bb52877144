"""All policies of an entity: its own, its groups', its boundary."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.core.clock import ManualClock
from cloche.core.typed import BadRecord
from cloche.records.store import Resource, Store
from cloche.services.iam import policies
from cloche.services.iam.attached import EntityPolicies

ACCOUNT = "123456789012"
NOTHING = json.dumps({"Statement": []})
SAGEMAKER = policies.SAGEMAKER_FULL_ACCESS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "cloche.db", ManualClock())
    yield made
    made.close()


async def entity(store: Store, kind: str, name: str, **document: Any) -> Resource:
    now = store.clock.now()
    record = Resource(
        account=ACCOUNT,
        region="",
        kind=kind,
        name=name.lower(),
        arn=f"arn:aws:iam::{ACCOUNT}:{kind}/{name}",
        created=now,
        modified=now,
        document=document,
    )
    return await store.insert(record)


async def test_a_user_has_the_policies_of_its_groups(store: Store) -> None:
    held = {"Policies": [SAGEMAKER], "Inline": {"g": NOTHING}}
    group = await entity(store, "group", "Team", **held, GroupName="Team")
    user = await entity(
        store, "user", "Ann", UserName="Ann", Groups=["Team", "Gone"], Inline={"u": NOTHING}
    )
    attached = EntityPolicies(store).attached(user)
    names = [each.name for each in attached.identity]
    assert names == ["user_Ann_u", SAGEMAKER, "group_Team_g"]
    assert attached.boundary is None
    assert attached.used == {user.arn, group.arn, SAGEMAKER}


async def test_a_boundary_that_is_gone_allows_nothing(store: Store) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:policy/Gone"
    role = await entity(store, "role", "r", PermissionsBoundary=arn)
    found = EntityPolicies(store).attached(role)
    assert found.boundary is not None and found.boundary.policy == {"Statement": []}
    assert arn in found.used


async def test_a_policy_of_another_account_is_none(store: Store) -> None:
    customer = EntityPolicies(store).customer
    theirs = await customer.create(
        "210987654321", "P", NOTHING, path="/", description=None, tags=(), now=store.clock.now()
    )
    assert EntityPolicies(store).managed("210987654321", theirs.arn) is not None
    assert EntityPolicies(store).managed(ACCOUNT, theirs.arn) is None


async def test_a_policy_that_cannot_be_read_is_not_passed_over(store: Store) -> None:
    customer = EntityPolicies(store).customer
    policy = await customer.create(
        ACCOUNT, "P", NOTHING, path="/", description=None, tags=(), now=store.clock.now()
    )
    role = await entity(store, "role", "r", Policies=[policy.arn])
    await store.update(policy.record, document={"Versions": 7})
    with pytest.raises(BadRecord, match="policy/P"):
        EntityPolicies(store).attached(role)
