"""Keys and sessions: issued, found, kept over a restart, swept."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from cloche.core.clock import ManualClock, to_ms
from cloche.core.identity import Credential, Session
from cloche.records.store import Store
from cloche.services.iam import Identity, Policies

ACCOUNT, REGION = "123456789012", "us-east-1"
ATTACHED = [
    "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess",
    "arn:aws:iam::aws:policy/AmazonS3FullAccess",
]


@dataclass
class Place:
    folder: Path
    clock: ManualClock
    store: Store

    def identity(self) -> Identity:
        return Identity(self.store, self.clock, Policies(self.store))

    def restarted(self) -> Identity:
        self.store.close()
        self.store = Store.open(self.folder / "cloche.db", self.clock)
        return self.identity()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    clock = ManualClock()
    place = Place(tmp_path, clock, Store.open(tmp_path / "cloche.db", clock))
    yield place
    place.store.close()


async def bootstrapped(identity: Identity, *keys: str | None) -> tuple[Credential, str]:
    first, second = keys if keys else (None, None)
    made = await identity.bootstrap(ACCOUNT, REGION, first, second, identity.clock.now())
    return made.root, made.role_arn


async def test_bootstrap_makes_root_and_two_roles(place: Place) -> None:
    identity = place.identity()
    root, role_arn = await bootstrapped(identity)
    assert (root.principal.kind, root.principal.arn) == ("root", f"arn:aws:iam::{ACCOUNT}:root")
    assert root.access_key_id.startswith("AKIA") and len(root.access_key_id) == 20
    assert len(root.secret_access_key) == 40
    name = "service-role/AmazonSageMaker-ExecutionRole-20211128T172600"
    assert role_arn == f"arn:aws:iam::{ACCOUNT}:role/{name}"
    role = identity.role_by_arn(role_arn)
    assert role is not None and "sagemaker.amazonaws.com" in role.trust
    assert role.policies == ATTACHED
    admin = identity.role(ACCOUNT, "Cloche-Administrator")
    assert admin is not None and f'"AWS": "arn:aws:iam::{ACCOUNT}:root"' in admin.trust
    assert admin.policies == ["arn:aws:iam::aws:policy/AdministratorAccess"]


async def test_bootstrap_again_changes_nothing(place: Place) -> None:
    first = await bootstrapped(place.identity())
    place.clock.advance(1000)
    assert await bootstrapped(place.restarted()) == first


async def test_chosen_root_keys_replace_those_that_were_drawn(place: Place) -> None:
    identity = place.identity()
    generated, _ = await bootstrapped(identity)
    assert identity.find(generated.access_key_id) == generated
    chosen, _ = await bootstrapped(identity, "AKIACHOSEN0000000000", "s" * 40)
    assert (chosen.access_key_id, chosen.secret_access_key) == ("AKIACHOSEN0000000000", "s" * 40)
    assert identity.find(generated.access_key_id) is None
    changed, _ = await bootstrapped(identity, "AKIACHOSEN0000000000", "t" * 40)
    found = identity.find("AKIACHOSEN0000000000")
    assert found == changed and found is not None and found.secret_access_key == "t" * 40
    assert (await bootstrapped(identity))[0] == changed


async def test_session_survives_a_restart(place: Place) -> None:
    identity = place.identity()
    _, role_arn = await bootstrapped(identity)
    issued = await identity.session(role_arn, "me", 3600, place.clock.now())
    assert issued.access_key_id.startswith("ASIA") and issued.session_token is not None
    assert issued.expires == place.clock.now() + timedelta(hours=1)
    role_name = role_arn.rsplit("/", 1)[-1]
    assert issued.principal.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role_name}/me"
    assert issued.principal.role_arn == role_arn
    assert place.restarted().find(issued.access_key_id) == issued


async def test_what_a_session_carries_survives_a_restart(place: Place) -> None:
    identity = place.identity()
    root, _ = await bootstrapped(identity)
    carried = Session(
        issued_at_ms=to_ms(place.clock.now()),
        policies=("{}",),
        policy_arns=("arn:aws:iam::aws:policy/ReadOnlyAccess",),
        tags={"team": "dogs"},
        transitive=("team",),
        source_identity="ann",
        mfa_at_ms=1,
        from_token=True,
    )
    who = replace(root.principal, session=carried)
    issued = await identity.issue(who, ACCOUNT, 900, place.clock.now())
    plain = await identity.issue(root.principal, ACCOUNT, 900, place.clock.now())
    assert issued.principal.session == carried
    again = place.restarted()
    assert again.find(issued.access_key_id) == issued
    found = again.find(plain.access_key_id)
    assert found is not None and found == plain
    assert found.principal.session == Session(issued_at_ms=to_ms(place.clock.now()))


async def test_session_of_no_role_is_refused(place: Place) -> None:
    with pytest.raises(KeyError):
        await place.identity().session(
            f"arn:aws:iam::{ACCOUNT}:role/nobody", "me", 3600, place.clock.now()
        )


async def test_expired_sessions_are_told_apart_for_a_day_then_swept(place: Place) -> None:
    identity = place.identity()
    _, role_arn = await bootstrapped(identity)
    old = await identity.session(role_arn, "old", 900, place.clock.now())
    place.clock.advance(24 * 3600)
    await identity.session(role_arn, "new", 900, place.clock.now())
    assert identity.find(old.access_key_id) == old
    place.clock.advance(24 * 3600)
    new = await identity.session(role_arn, "newer", 900, place.clock.now())
    assert identity.find(old.access_key_id) is None
    assert identity.find(new.access_key_id) == new
    names = [record.name for record in place.store.each("session")]
    assert new.access_key_id in names and old.access_key_id not in names


async def test_sessions_end_with_their_role(place: Place) -> None:
    identity = place.identity()
    role = await identity.create_role(ACCOUNT, "temporary", "{}", now=place.clock.now())
    issued = await identity.session(role.arn, "me", 900, place.clock.now())
    assert identity.find(issued.access_key_id) == issued
    await identity.delete_role(role)
    assert identity.find(issued.access_key_id) is None
    again = await identity.create_role(ACCOUNT, "temporary", "{}", now=place.clock.now())
    assert again.id != role.id


async def test_unknown_keys_fill_no_memory(place: Place) -> None:
    identity = place.identity()
    for number in range(50):
        assert identity.find(f"AKIAGUESS{number:011d}") is None
    assert identity.known == {}


async def test_find_is_quick(place: Place) -> None:
    """The hot path of every request: 20 microseconds are allowed, a dictionary takes one."""
    identity = place.identity()
    root, _ = await bootstrapped(identity)
    identity.find(root.access_key_id)
    start = time.process_time()
    for _ in range(10_000):
        identity.find(root.access_key_id)
    assert (time.process_time() - start) / 10_000 < 20e-6


async def test_documents_are_as_the_first_release_wrote_them(place: Place) -> None:
    identity = place.identity()
    _, role_arn = await bootstrapped(identity)
    role = identity.role_by_arn(role_arn)
    assert role is not None
    kept = place.store.find(role_arn)
    assert kept is not None and kept.document == {
        "RoleName": role.name,
        "RoleId": role.id,
        "Path": "/service-role/",
        "AssumeRolePolicyDocument": role.trust,
        "MaxSessionDuration": 3600,
        "Policies": ATTACHED,
        "Inline": {},
        "Tags": [],
        "Description": f"SageMaker execution role created with the account, for {REGION}.",
    }
    session = await identity.session(role_arn, "s", 900, place.clock.now())
    key = place.store.find(f"session/{session.access_key_id}")
    assert key is not None and key.document == {
        "Principal": {
            "kind": "assumed-role",
            "account": ACCOUNT,
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/s",
            "user_id": f"{role.id}:s",
            "role_arn": role_arn,
        },
        "Expiration": to_ms(place.clock.now()) + 900_000,
    }


async def test_a_role_of_an_older_release_has_no_inline_policies_and_no_boundary(
    place: Place,
) -> None:
    identity = place.identity()
    _, role_arn = await bootstrapped(identity)
    record = place.store.find(role_arn)
    assert record is not None
    old = {name: value for name, value in record.document.items() if name != "Inline"}
    record = await place.store.update(record, document=old)
    attached = identity.policies.attached(record)
    assert [each.name for each in attached.identity] == ATTACHED
    assert attached.boundary is None
    role = identity.role_by_arn(role_arn)
    assert role is not None and role.document.inline == {}
    await identity.change_role(role, role.document.replace(inline={"p": "{}"}))


async def test_what_a_later_release_keeps_with_a_role_stays(place: Place) -> None:
    identity = place.identity()
    _, role_arn = await bootstrapped(identity)
    first = place.store.find(role_arn)
    assert first is not None
    later = {**first.document, "LastUsed": {"Arn": "a"}}
    await place.store.update(first, document=later)
    role = identity.role_by_arn(role_arn)
    assert role is not None
    await identity.change_role(role, role.document.replace(policies=()))
    kept = place.store.find(role_arn)
    assert kept is not None and kept.document == {**later, "Policies": []}
