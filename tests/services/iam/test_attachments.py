"""Who uses which policy: kept in step with the store; a policy in use is not deleted."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cloche.core.clock import ManualClock
from cloche.records.store import Conflict, Store
from cloche.services.iam import Identity, IssuedKeys
from cloche.services.iam.attachments import Attachments
from cloche.services.iam.customer_policies import CustomerPolicy

ACCOUNT, OTHER = "123456789012", "210987654321"
POLICY, BOUNDARY = "arn:aws:iam::aws:policy/A", "arn:aws:iam::aws:policy/B"


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    clock = ManualClock()
    store = Store.open(tmp_path / "cloche.db", clock)
    yield Identity(store, clock, IssuedKeys())
    store.close()


def counts(attachments: Attachments, account: str = ACCOUNT) -> tuple[int, int]:
    return (
        attachments.count(account, POLICY),
        attachments.count(account, BOUNDARY, "PermissionsBoundary"),
    )


async def test_counts_follow_every_change(identity: Identity) -> None:
    now = identity.clock.now()
    early = identity.attachments  # made of what is there when it is asked for the first time
    first = await identity.create_role(ACCOUNT, "first", "{}", attached=(POLICY,), now=now)
    await identity.create_role(OTHER, "first", "{}", attached=(POLICY,), now=now)
    assert (counts(early), counts(early, OTHER)) == ((1, 0), (1, 0))
    second = await identity.create_role(ACCOUNT, "second", "{}", boundary=BOUNDARY, now=now)
    assert counts(early) == (1, 1)
    second = await identity.change_role(second, second.document.replace(policies=(POLICY,)))
    assert counts(early) == (2, 1)
    await identity.delete_role(first)
    assert counts(early) == (1, 1)
    await identity.delete_role(second)
    later = now + timedelta(seconds=1)
    await identity.create_role(ACCOUNT, "second", "{}", attached=(POLICY,), now=later)
    assert counts(early) == (1, 0)
    late = Attachments(identity.store)
    assert (counts(late), counts(late, OTHER)) == (counts(early), (1, 0))
    assert late.of(ACCOUNT, POLICY, "PermissionsPolicy") == {f"arn:aws:iam::{ACCOUNT}:role/second"}


async def test_a_damaged_row_harms_no_other(identity: Identity) -> None:
    now = identity.clock.now()
    role = await identity.create_role(ACCOUNT, "damaged", "{}", attached=(POLICY,), now=now)
    await identity.create_role(ACCOUNT, "well", "{}", attached=(POLICY,), now=now)
    await identity.store.update(role.record, document={"Policies": 7})
    assert counts(identity.attachments) == (1, 0)


async def used(identity: Identity) -> CustomerPolicy:
    return await identity.policies.customer.create(
        ACCOUNT, "P", "{}", path="/", description=None, tags=(), now=identity.clock.now()
    )


async def test_who_deletes_a_policy_that_was_just_attached_gets_conflict(
    identity: Identity,
) -> None:
    customer, now = identity.policies.customer, identity.clock.now()
    policy = await used(identity)
    role = await identity.create_role(ACCOUNT, "r", "{}", now=now)
    seen = customer.find(ACCOUNT, policy.arn)  # and nobody used it then
    assert seen is not None
    document = role.document.replace(policies=(policy.arn,))
    await identity.change_role(role, document, customer.use(policy))
    with pytest.raises(Conflict):
        await customer.delete(seen)


async def test_who_attaches_a_policy_that_was_just_deleted_gets_conflict(
    identity: Identity,
) -> None:
    customer, now = identity.policies.customer, identity.clock.now()
    policy = await used(identity)
    await customer.delete(policy)
    with pytest.raises(Conflict):
        await identity.create_role(
            ACCOUNT, "r", "{}", attached=(policy.arn,), also=(customer.use(policy),), now=now
        )
    assert identity.role(ACCOUNT, "r") is None


@pytest.mark.control("without what goes with it, the role has a policy that is not there")
async def test_control_a_policy_that_is_gone_can_be_attached(identity: Identity) -> None:
    policy = await used(identity)
    await identity.policies.customer.delete(policy)
    now = identity.clock.now()
    role = await identity.create_role(ACCOUNT, "r", "{}", attached=(policy.arn,), now=now)
    assert role.policies == [policy.arn]
    assert identity.policies.attached(role.record).identity == ()
