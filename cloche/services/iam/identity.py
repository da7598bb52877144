"""Who there is: keys, roles, users, root; what the gateway and other services ask.

Roles are resources of kind "role", named in lower case, in region "" because IAM is global; root
is one of kind "user".
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from msgspec import UNSET

from cloche.core import executors
from cloche.core.arn import parse_arn
from cloche.core.authorization import Actor, Authorizer, Question
from cloche.core.clock import Clock
from cloche.core.identity import Credential, Principal, Session
from cloche.core.ids import secret_access_key, unique_id
from cloche.core.typed import decode, encode, readable
from cloche.events import Nowhere, RoleWork, Sink
from cloche.records.resource import Resource
from cloche.records.store import Change, Store
from cloche.services.iam import policies
from cloche.services.iam.attached import EntityPolicies
from cloche.services.iam.attachments import Attachments
from cloche.services.iam.keys import Keys, key_resource
from cloche.services.iam.mfa import MfaDevices
from cloche.services.iam.passwords import Passwords
from cloche.services.iam.record import RoleDocument
from cloche.services.iam.record_users import UserDocument
from cloche.services.iam.trust_policies import trusts
from cloche.services.iam.users import ROOT, User, Users

REGION = ""
EXECUTION_ROLE = "AmazonSageMaker-ExecutionRole-"
ADMINISTRATOR = "Cloche-Administrator"
SAGEMAKER_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
# Of what the platform asks for a role.
PLATFORM_KEYS = {"aws:securetransport": "true", "aws:viaawsservice": "false"}


@dataclass(frozen=True, slots=True)
class Role:
    """A role; `record` is what the store holds of it, `document` what is said there."""

    record: Resource
    document: RoleDocument

    @classmethod
    def of(cls, record: Resource) -> Self:
        """Return the row as a role; BadRecord when it is none."""
        return cls(record, decode(RoleDocument, record.document, record.arn))

    @property
    def name(self) -> str:
        """The name without the path."""
        return self.document.role_name

    @property
    def arn(self) -> str:
        """`arn:aws:iam::ACCOUNT:role/PATH/NAME`."""
        return self.record.arn

    @property
    def id(self) -> str:
        """`AROA…`."""
        return self.document.role_id

    @property
    def trust(self) -> str:
        """The trust policy, as it was sent."""
        return self.document.assume_role_policy_document

    def trusts(self, question: Question) -> bool:
        """Tell whether its trust policy lets the caller in."""
        return trusts(self.arn, self.trust, question)

    def session(self, name: str, session: Session | None = None) -> Principal:
        """Return who has a session of this name, and what the session carries."""
        account = self.record.account
        return Principal(
            kind="assumed-role",
            account=account,
            arn=f"arn:aws:sts::{account}:assumed-role/{self.name}/{name}",
            user_id=f"{self.id}:{name}",
            role_arn=self.arn,
            session=session,
        )

    @property
    def max_session_s(self) -> int:
        """How long a session of this role may last, seconds."""
        return self.document.max_session_duration

    @property
    def policies(self) -> list[str]:
        """ARNs of the attached managed policies."""
        return list(self.document.policies)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What an account starts with."""

    root: Credential
    role_arn: str  # the execution role's


class Identity(Keys):
    """Knows every key that the platform issued (implements core.identity.Credentials)."""

    def __init__(
        self, store: Store, clock: Clock, authorizer: Authorizer, events: Sink | None = None
    ) -> None:
        super().__init__(store, clock)
        self.authorizer, self.events = authorizer, events or Nowhere()
        self.policies, self.attachments = EntityPolicies(store), Attachments(store)
        self.users, self.passwords = Users(store), Passwords(store)
        self.mfa = MfaDevices(store)

    async def close(self) -> None:
        """Write what is noted of keys."""
        await self.key_use.close()

    async def bootstrap(
        self,
        account: str,
        region: str,
        root_access_key_id: str | None,
        root_secret_access_key: str | None,
        now: datetime,
    ) -> Bootstrap:
        """Make what an account starts with, as far as it is not there: root's keys, two roles.

        A key pair that is given (None: draw one) replaces the one that root has. `region` is where
        SageMaker runs; IAM itself is global. Sessions that expired long ago are removed.
        """
        await self.sweep()
        await self._sweep_secrets()
        root = await self._root_key(account, root_access_key_id, root_secret_access_key, now)
        role = self.execution_role(account)
        if role is None:
            role = await self.create_role(
                account,
                f"{EXECUTION_ROLE}{now:%Y%m%dT%H%M%S}",
                json.dumps(SAGEMAKER_TRUST),
                path="/service-role/",
                description=f"SageMaker execution role created with the account, for {region}.",
                attached=(policies.SAGEMAKER_FULL_ACCESS, policies.S3_FULL_ACCESS),
                now=now,
            )
        if self.role(account, ADMINISTRATOR) is None:
            await self.create_role(
                account,
                ADMINISTRATOR,
                json.dumps(trusting(root.principal.arn)),
                description="The administrator of the account: `cloche run --as admin`.",
                attached=(policies.ADMINISTRATOR_ACCESS,),
                now=now,
            )
        return Bootstrap(root, role.arn)

    async def session(
        self, role_arn: str, session_name: str, duration_s: int, now: datetime
    ) -> Credential:
        """Return new keys of a session of the role, durable; KeyError when there is no role."""
        role = self.role_by_arn(role_arn)
        if role is None:
            raise KeyError(role_arn)
        return await self.issue(role.session(session_name), role.id, duration_s, now)

    def acting_as(self, role_arn: str, session_name: str) -> Actor:
        """Return who asks when the platform works for a role.

        A role that is gone may ask too: what it is answered is the authorizer's to say.
        """
        role = self.role_by_arn(role_arn)
        principal = role.session(session_name) if role is not None else gone(role_arn, session_name)
        note = RoleWork(self.events, self.clock.now).note
        return Actor(principal, self.authorizer, self.clock.now, lambda: PLATFORM_KEYS, note)

    # ------------------------------------------------------------------ roles

    def role(self, account: str, name: str) -> Role | None:
        """Return the role of that name (upper and lower case are the same), or None."""
        record = self.store.get("role", account, REGION, name.lower())
        return Role.of(record) if record is not None else None

    def role_by_arn(self, arn: str) -> Role | None:
        """Return the role with this ARN, or None; the path must be right."""
        try:
            parts = parse_arn(arn)
        except ValueError:
            return None
        if parts.service != "iam" or not parts.resource.startswith("role/"):
            return None
        record = self.store.find(arn)
        return Role.of(record) if record is not None and record.kind == "role" else None

    def roles_after(self, account: str, name: str | None) -> Iterator[Role]:
        """Yield the account's roles by name in lower case, those after one; read as taken."""
        yield from readable(Role.of, self.store.named_after("role", account, REGION, name))

    def execution_role(self, account: str) -> Role | None:
        """Return the role that the account was made with (the oldest such), or None."""
        records = [
            record
            for record in self.store.each("role")
            if record.account == account and f"role/service-role/{EXECUTION_ROLE}" in record.arn
        ]
        return next(readable(Role.of, records), None)

    async def create_role(
        self,
        account: str,
        name: str,
        trust: str,
        *,
        path: str = "/",
        description: str | None = None,
        max_session_s: int = 3600,
        tags: list[dict[str, str]] | None = None,
        attached: tuple[str, ...] = (),
        boundary: str | None = None,
        also: Sequence[Change] = (),
        now: datetime,
    ) -> Role:
        """Record a role whose trust policy was checked; AlreadyExists when the name is taken.

        also: what is written with it (of the policies that it uses), or neither is (Conflict).
        """
        document = RoleDocument(
            role_name=name,
            role_id=unique_id("AROA"),
            path=path,
            assume_role_policy_document=trust,
            max_session_duration=max_session_s,
            policies=attached,
            permissions_boundary=UNSET if boundary is None else boundary,
            tags=tuple(tags or ()),
            description=UNSET if description is None else description,
        )
        arn = f"arn:aws:iam::{account}:role{path}{name}"
        record = Resource(
            account=account,
            region=REGION,
            kind="role",
            name=name.lower(),
            arn=arn,
            created=now,
            modified=now,
            document=encode(document),
        )
        await self.store.change((Change(new=record), *also))
        return Role(record, document)

    async def delete_role(self, role: Role) -> None:
        """Remove a role; the keys of its sessions stop working. Conflict when it just changed."""
        await self.store.delete(role.record)
        for record in await executors.RECORDS.run(self.store.each, "session", [role.id]):
            await self._drop_key(record)

    async def change_role(self, role: Role, document: RoleDocument, *also: Change) -> Role:
        """Write a role's document, and what goes with it; Conflict when something just changed."""
        record = await self.store.update(role.record, document=encode(document), also=also)
        return Role(record, document)

    # ------------------------------------------------------------------ users

    async def rename_user(self, user: User, document: UserDocument) -> None:
        """Write a user under another name or path, everywhere; as `Users.rename_user`."""
        devices = self.mfa.of(user.id)
        await self.users.rename_user(user, document, self.mfa.renamed(devices, document.user_name))

    async def delete_user(self, user: User) -> None:
        """Remove a user that nothing belongs to; its sessions end. Conflict: it just changed."""
        await self.users.delete(user)
        for record in await executors.RECORDS.run(self.store.each, "session", [user.id]):
            await self._drop_key(record)

    async def prove_mfa(
        self, principal: Principal, serial_number: str, code: str, now: datetime
    ) -> bool | None:
        """Tell whether a code is right, which is then used up; None: the device is not theirs."""
        device = self.mfa.find(principal.account, serial_number)
        if device is None or device.owner != principal.user_id:
            return None
        return await self.mfa.verify(device, code, now)

    # ------------------------------------------------------------------ root

    def root(self, account: str) -> Resource | None:
        """Return the record of the account's root user, or None before `bootstrap`."""
        return self.store.get("user", account, REGION, ROOT)

    async def _root_key(
        self, account: str, key_id: str | None, secret: str | None, now: datetime
    ) -> Credential:
        arn = f"arn:aws:iam::{account}:root"
        if self.root(account) is None:
            user = Resource(
                account=account,
                region=REGION,
                kind="user",
                name=ROOT,
                arn=arn,
                created=now,
                modified=now,
            )
            await self.store.insert(user)
        for record in self.store.each("access-key", statuses=[account]):
            held = next(readable(self._credential, [record]), None)
            if (
                held is not None
                and key_id in (None, held.access_key_id)
                and secret in (None, held.secret_access_key)
            ):
                return held
            await self._drop_key(record)
        principal = Principal(kind="root", account=account, arn=arn, user_id=account)
        secrets = {"SecretAccessKey": secret or secret_access_key()}
        key_id = key_id or unique_id("AKIA", 20)
        record = key_resource("access-key", key_id, principal, account, now)
        return await self._keep(record, secrets)


def gone(role_arn: str, session_name: str) -> Principal:
    """Return who had a session of a role that is no more, as far as its ARN tells."""
    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    return Principal(
        kind="assumed-role",
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{name}/{session_name}",
        user_id=f":{session_name}",
        role_arn=role_arn,
    )


def trusting(account_arn: str) -> dict[str, object]:
    """Return a trust policy that lets in whom the account's policies let."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": account_arn}, "Action": "sts:AssumeRole"}
        ],
    }
