"""Whose policies are asked, and when a change of them is in force."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from cloche.core.authorization import Decision, Question, ResourcePolicy
from cloche.core.clock import ManualClock
from cloche.core.identity import Principal
from cloche.records.store import Resource, Store
from cloche.services.iam import Identity, Policies, Role
from cloche.services.iam.authorizer import MOST_TEXT

ACCOUNT, OTHER = "123456789012", "999999999999"
BUCKETS = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
OBJECT = "arn:aws:s3:::b/k"
DELETE, READ = "s3:DeleteObject", "s3:GetObject"


def policy(effect: str, action: str, resource: str = "*") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Place:
    """A store, and what answers from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock()
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder / "cloche.db", self.clock)
        self.policies = Policies(self.store)
        self.identity = Identity(self.store, self.clock, self.policies)

    async def role(self, name: str = "worker", *attached: str) -> Role:
        now = self.clock.now()
        return await self.identity.create_role(ACCOUNT, name, "{}", attached=attached, now=now)

    async def insert(self, kind: str, name: str, arn: str, document: dict[str, Any]) -> Resource:
        now = self.clock.now()
        record = Resource(
            account=ACCOUNT,
            region="",
            kind=kind,
            name=name.lower(),
            arn=arn,
            created=now,
            modified=now,
            document=document,
        )
        return await self.store.insert(record)

    async def change(self, arn: str, **members: Any) -> None:
        record = self.store.find(arn)
        assert record is not None
        await self.store.update(record, document={**record.document, **members})

    def ask(self, who: Principal, action: str = READ, resource: str = OBJECT) -> Decision:
        return self.policies.decide(Question(who, action, resource))

    def may(self, who: Principal, action: str = READ, resource: str = OBJECT) -> bool:
        return self.ask(who, action, resource).allowed


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.store.close()


async def test_a_role_may_do_what_its_managed_policies_allow(place: Place) -> None:
    role = await place.role("worker", BUCKETS)
    session = role.session("me")
    said = place.ask(session)
    assert said.allowed and [by.policy for by in said.by] == [BUCKETS]
    assert place.ask(session, DELETE) == Decision("implicitDeny")
    assert not place.may((await place.role("nobody")).session("me"))


async def test_a_change_is_in_force_at_the_next_question(place: Place) -> None:
    role = await place.role()
    session = role.session("me")
    assert not place.may(session)
    await place.change(role.arn, Policies=[BUCKETS])
    assert place.may(session)
    await place.change(role.arn, Policies=[], Inline={"mine": policy("Allow", DELETE)})
    assert place.may(session, DELETE) and not place.may(session)
    await place.change(role.arn, Inline={"mine": policy("Deny", DELETE)}, Policies=[BUCKETS])
    assert place.ask(session, DELETE).verdict == "explicitDeny"
    assert place.may(session)


async def test_what_is_kept_is_dropped_only_by_what_it_is_made_of(place: Place) -> None:
    role, other = await place.role("worker", BUCKETS), await place.role("other")
    assert place.may(role.session("me"))
    kept = place.policies.kept[role.arn]
    await place.change(other.arn, Policies=[BUCKETS])
    assert place.policies.kept[role.arn] is kept
    await place.change(role.arn, Policies=[])
    assert role.arn not in place.policies.kept


async def test_changes_are_in_force_after_a_restart(place: Place) -> None:
    role = await place.role("worker", BUCKETS)
    session = role.session("me")
    assert place.may(session)
    await place.change(role.arn, Policies=[])
    place.store.close()
    place.open()
    assert not place.may(session)


async def test_a_role_that_is_gone_may_nothing_nor_does_its_successor_lend_its_name(
    place: Place,
) -> None:
    role = await place.role("worker", BUCKETS)
    session = role.session("me")
    assert place.may(session)
    await place.identity.delete_role(role)
    assert not place.may(session)
    again = await place.role("worker", BUCKETS)
    assert place.may(again.session("me"))
    assert not place.may(session)
    assert place.identity.acting_as(again.arn, "job").decide(READ, OBJECT).allowed
    await place.identity.delete_role(again)
    assert not place.identity.acting_as(again.arn, "job").decide(READ, OBJECT).allowed


async def test_a_customer_policy_is_its_default_version(place: Place) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:policy/Own"
    versions = [
        {"VersionId": "v1", "Document": policy("Allow", READ), "CreateDate": 0},
        {"VersionId": "v2", "Document": policy("Allow", DELETE), "CreateDate": 0},
    ]
    role = await place.role("worker", arn)
    session = role.session("me")
    assert not place.may(session)  # it is not made yet
    document = {"PolicyName": "Own", "PolicyId": "ANPA1", "Versions": versions}
    await place.insert("policy", "Own", arn, document)
    assert place.may(session) and not place.may(session, DELETE)
    await place.change(arn, DefaultVersionId="v2")
    assert place.may(session, DELETE) and not place.may(session)


async def test_a_user_has_its_own_policies_and_its_groups(place: Place) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:user/ann"
    group = f"arn:aws:iam::{ACCOUNT}:group/Readers"
    await place.insert("group", "Readers", group, {"Policies": [BUCKETS]})
    await place.insert("user", "ann", arn, {"UserId": "AIDAANN", "Groups": ["Readers"]})
    ann = Principal(kind="user", account=ACCOUNT, arn=arn, user_id="AIDAANN")
    assert place.may(ann) and not place.may(ann, DELETE)
    await place.change(group, Inline={"no": policy("Deny", READ)})
    assert place.ask(ann).verdict == "explicitDeny"
    await place.change(arn, Groups=[], Inline={"mine": policy("Allow", DELETE)})
    assert place.may(ann, DELETE) and not place.may(ann)
    former = Principal(kind="user", account=ACCOUNT, arn=arn, user_id="AIDAFORMER")
    assert not place.may(former, DELETE)


async def test_a_boundary_bounds_and_one_that_is_gone_allows_nothing(place: Place) -> None:
    role = await place.role("worker", "arn:aws:iam::aws:policy/AdministratorAccess")
    session = role.session("me")
    assert place.may(session) and place.may(session, DELETE)
    await place.change(role.arn, PermissionsBoundary=BUCKETS)
    assert place.may(session)
    assert place.ask(session, DELETE) == Decision(
        "implicitDeny", missing=(), lacking="permissions boundary"
    )
    await place.change(role.arn, PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/gone")
    assert not place.may(session)


async def test_root_may_everything_in_its_account(place: Place) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:root"
    root = Principal(kind="root", account=ACCOUNT, arn=arn, user_id=ACCOUNT)
    assert place.may(root) and place.may(root, "iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/x")
    there = f"arn:aws:sagemaker:us-east-1:{OTHER}:endpoint/e"
    said = place.ask(root, "sagemaker:DeleteEndpoint", there)
    assert (said.verdict, said.lacking) == ("implicitDeny", "resource-based policy")
    service = Principal(kind="service", account=ACCOUNT, arn="x.amazonaws.com", user_id="x")
    assert not place.may(service)


async def test_another_account_s_resource_needs_its_own_policy_too(place: Place) -> None:
    place.policies.resource_policies = lambda arn: ResourcePolicy(OTHER) if arn == OBJECT else None
    role = await place.role("worker", BUCKETS)
    said = place.ask(role.session("me"))
    assert (said.verdict, said.lacking) == ("implicitDeny", "resource-based policy")
    assert place.may(role.session("me"), READ, "arn:aws:s3:::mine/k")


async def test_memory_is_bounded(place: Place) -> None:
    long = policy("Allow", READ, "arn:aws:s3:::" + "x" * (MOST_TEXT // 8))
    roles = [await place.role(f"role-{number}") for number in range(12)]
    for role in roles:
        await place.change(role.arn, Inline={"long": long, "mine": policy("Allow", READ)})
        assert place.may(role.session("me"))
    kept = place.policies.kept
    assert 0 < len(kept) < len(roles) and place.policies.text <= MOST_TEXT
    assert roles[-1].arn in kept and roles[0].arn not in kept
    assert all(arn in kept for arn in place.policies.using)
    assert place.may(roles[0].session("me"))


async def test_what_changes_while_it_is_read_is_not_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = await place.role("worker", BUCKETS)
    session, read, changed = role.session("me"), Event(), Event()
    find = place.policies.store.find

    def slow(arn: str) -> Resource | None:
        found = find(arn)
        read.set()
        assert changed.wait(30)
        return found

    monkeypatch.setattr(place.policies.store, "find", slow)
    first: list[bool] = []
    asking = Thread(target=lambda: first.append(place.may(session)))
    asking.start()
    assert await asyncio.to_thread(read.wait, 30)
    await place.store.update(role.record, document={**role.record.document, "Policies": []})
    monkeypatch.setattr(place.policies.store, "find", find)
    changed.set()
    await asyncio.to_thread(asking.join, 30)
    assert first == [True]  # asked before the change
    assert not place.may(session)
