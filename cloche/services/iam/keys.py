"""Access keys and sessions: issued, found, made inactive, removed.

Resources of kind "access-key" and "session" in region "" (IAM is global), named by the access key
id; the status names the owner (a user's or role's id; of root the account). The secrets lie in
`store.secrets`, under the names that `key_arn` gives.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from msgspec import UNSET, UnsetType

from cloche.core import executors
from cloche.core.clock import Clock, from_ms, to_ms
from cloche.core.identity import Credential, Principal, Session
from cloche.core.ids import secret_access_key, session_token, unique_id
from cloche.core.typed import decode, encode, readable
from cloche.records.resource import Resource
from cloche.records.store import Change, Changed, Store
from cloche.services.iam.key_use import KeyUse
from cloche.services.iam.record import KeyDocument
from cloche.services.iam.users import KEYS, User

REGION = ""
# An expired session is kept a while, so that its user learns that it expired.
KEEP_EXPIRED, SWEEP_EVERY = timedelta(days=1), timedelta(hours=1)
KEY_NAMES = tuple(f"{kind}/" for kind in KEYS)
CACHED = 10_000  # credentials held in memory


class Keys:
    """The keys of all accounts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.key_use = KeyUse(store)
        self.known: dict[str, Credential] = {}
        self.swept: datetime | None = None
        store.on_change(self._changed)

    def find(self, access_key_id: str) -> Credential | None:
        """Return the credential, also when it has expired; None: the platform did not issue it, or
        it is an access key that was made inactive.

        The answer may come from memory: what changes or goes is forgotten. Only what exists is
        remembered, so guessing keys fills no memory.
        """
        found = self.known.get(access_key_id)
        if found is not None:
            return found
        for kind in KEYS:
            record = self.store.find(key_arn(kind, access_key_id))
            found = self._credential(record) if record is not None else None
            if found is not None:
                if len(self.known) >= CACHED:
                    self.known.clear()
                self.known[access_key_id] = found
                return found
        return None

    def forget(self, access_key_id: str) -> None:
        """Take a credential that was changed or deleted out of the memory."""
        self.known.pop(access_key_id, None)

    def used(self, credential: Credential, service: str, region: str, now: datetime) -> None:
        """Note that a request was signed with a key; of long-term keys it is kept."""
        if credential.session_token is None:
            self.key_use.note(credential.access_key_id, service, region, now)

    async def issue(
        self, principal: Principal, owner: str, duration_s: int, now: datetime
    ) -> Credential:
        """Return new temporary keys for a principal, with the session that it has.

        They go when `owner` (an id) goes.
        """
        if self.swept is None or self.clock.now() - self.swept >= SWEEP_EVERY:
            await self.sweep()
        secrets = {"SecretAccessKey": secret_access_key(), "SessionToken": session_token()}
        expires = to_ms(now + timedelta(seconds=duration_s))
        key_id = unique_id("ASIA", 20)
        record = key_resource("session", key_id, principal, owner, now, expires)
        return await self._keep(record, secrets)

    async def issue_for(
        self, principal: Principal, session: Session, duration_s: int, now: datetime
    ) -> Credential:
        """Return new temporary keys of a user or root; they go when the user does."""
        who = replace(principal, session=session)
        return await self.issue(who, principal.user_id, duration_s, now)

    def account_of(self, access_key_id: str) -> str | None:
        """Return the account that a key was issued for, or None."""
        found = (self.store.find(key_arn(kind, access_key_id)) for kind in KEYS)
        return next((each.account for each in found if each is not None), None)

    async def sweep(self) -> None:
        """Remove the sessions that expired more than a day ago."""
        self.swept = now = self.clock.now()
        too_old = to_ms(now - KEEP_EXPIRED)
        found = await executors.RECORDS.run(self.store.each, "session")
        for record, expires in readable(expiration, found):
            if expires is not UNSET and expires < too_old:
                await self._drop_key(record)

    def keys_of(self, owner: str) -> list[Resource]:
        """Return the access keys of a user's id, or of root's (the account), oldest first."""
        return self.store.each("access-key", [owner])

    def principal_of(self, key: Resource) -> Principal:
        """Return who has an access key or a session."""
        return decode(KeyDocument, key.document, key.arn).principal

    async def create_key(self, user: User, now: datetime) -> Credential:
        """Return a new access key of a user; Conflict when the user just changed."""
        secrets = {"SecretAccessKey": secret_access_key()}
        record = key_resource("access-key", unique_id("AKIA", 20), user.principal, user.id, now)
        await self.store.secrets.put({record.arn: json.dumps(secrets)})
        await self.store.update(user.record, also=[Change(new=record)])
        return credential(record, secrets)

    async def set_key_active(self, record: Resource, active: bool) -> None:
        """Let an access key work, or not; in force at the next request."""
        document = decode(KeyDocument, record.document, record.arn)
        written = encode(document.replace(active=active))
        written["Principal"].pop("session", None)
        await self.store.update(record, document=written)
        self.forget(record.name)

    async def delete_key(self, record: Resource) -> None:
        """Remove an access key; in force at the next request."""
        await self._drop_key(record)
        await self.key_use.drop(record.name)

    def _changed(self, change: Changed) -> None:
        if change.resource.kind in KEYS:
            self.forget(change.resource.name)

    def _credential(self, record: Resource) -> Credential | None:
        """Return the key pair of a record; None when its secret is not there, or it is inactive."""
        kept = self.store.secrets.get(record.arn)
        if kept is None or record.document.get("Active") is False:
            return None
        return credential(record, json.loads(kept))

    async def _keep(self, record: Resource, secrets: dict[str, str]) -> Credential:
        """Write a key's record and its secrets, both durable when this returns.

        A crash between the two leaves one without the other: a key that nobody knows.
        """
        await asyncio.gather(
            self.store.secrets.put({record.arn: json.dumps(secrets)}), self.store.insert(record)
        )
        return credential(record, secrets)

    async def _drop_key(self, record: Resource) -> None:
        await self.store.delete(record)
        self.forget(record.name)
        await self.store.secrets.drop([record.arn])

    async def _sweep_secrets(self) -> None:
        """Forget the secrets of keys that are no more: a crash came in between."""
        there = {record.arn for kind in KEYS for record in self.store.each(kind)}
        kept = [name for name in self.store.secrets.names() if name.startswith(KEY_NAMES)]
        await self.store.secrets.drop([name for name in kept if name not in there])


def key_arn(kind: str, access_key_id: str) -> str:
    """Return the name by which the store finds a key (AWS gives keys no ARN)."""
    return f"{kind}/{access_key_id}"


def key_resource(
    kind: str,
    key_id: str,
    principal: Principal,
    owner: str,
    now: datetime,
    expiration: int | UnsetType = UNSET,
) -> Resource:
    """Return the record of a key pair; its status names the owner, so that all of one are found."""
    session = UNSET if principal.session is None else principal.session
    document = KeyDocument(principal=principal, session=session, expiration=expiration)
    kept = {
        name: value for name, value in encode(document)["Principal"].items() if name != "session"
    }
    return Resource(
        account=principal.account,
        region=REGION,
        kind=kind,
        name=key_id,
        arn=key_arn(kind, key_id),
        status=owner,
        created=now,
        modified=now,
        document=encode(document) | {"Principal": kept},
    )


def expiration(record: Resource) -> tuple[Resource, int | UnsetType]:
    """Return a key's record and when it expires."""
    return record, decode(KeyDocument, record.document, record.arn).expiration


def credential(record: Resource, secrets: Mapping[str, str]) -> Credential:
    """Return the key pair of a record and its secrets."""
    document = decode(KeyDocument, record.document, record.arn)
    expires, principal = document.expiration, document.principal
    if record.kind == "session":
        plain = Session(issued_at_ms=to_ms(record.created))
        principal = replace(
            principal, session=plain if document.session is UNSET else document.session
        )
    return Credential(
        access_key_id=record.name,
        secret_access_key=secrets["SecretAccessKey"],
        principal=principal,
        session_token=secrets.get("SessionToken"),
        expires=None if expires is UNSET else from_ms(expires),
    )
