"""Customer managed policies: resources of kind "policy", named by their names in lower case.

So a name is there once in an account, whatever its path, as on AWS.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from msgspec import UNSET

from cloche.core.clock import to_ms
from cloche.core.ids import unique_id
from cloche.core.typed import decode, encode, readable
from cloche.records.resource import Resource
from cloche.records.store import Change, Store
from cloche.services.iam.record import PolicyDocument, PolicyVersion

REGION = ""
KIND = "policy"


@dataclass(frozen=True, slots=True)
class CustomerPolicy:
    """A customer managed policy; `record` is what the store holds of it."""

    record: Resource
    document: PolicyDocument

    @classmethod
    def of(cls, record: Resource) -> Self:
        """Return the row as a policy; BadRecord when it is none."""
        return cls(record, decode(PolicyDocument, record.document, record.arn))

    @property
    def arn(self) -> str:
        """`arn:aws:iam::ACCOUNT:policy/PATH/NAME`."""
        return self.record.arn

    @property
    def default(self) -> PolicyVersion:
        """The version that is in force."""
        found = self.version(self.document.default_version_id)
        assert found is not None
        return found

    def version(self, version_id: str) -> PolicyVersion | None:
        """Return one of its versions, or None."""
        found = (each for each in self.document.versions if each.version_id == version_id)
        return next(found, None)

    def with_version(self, text: str, now: datetime, default: bool) -> PolicyDocument:
        """Return the document with one version more."""
        made = self.document.made + 1
        version = PolicyVersion(version_id=f"v{made}", document=text, create_date=to_ms(now))
        document = self.document.replace(versions=(*self.document.versions, version), made=made)
        return document.replace(default_version_id=version.version_id) if default else document

    def without_version(self, version_id: str) -> PolicyDocument:
        """Return the document without a version."""
        kept = (each for each in self.document.versions if each.version_id != version_id)
        return self.document.replace(versions=tuple(kept))


def policy_text(version: PolicyVersion) -> Mapping[str, Any]:
    """Return what a version says; its grammar was checked."""
    found: dict[str, Any] = json.loads(version.document)
    return found


class CustomerPolicies:
    """The customer managed policies of all accounts."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def find(self, account: str, arn: str) -> CustomerPolicy | None:
        """Return an account's policy with this ARN, or None."""
        record = self.store.find(arn)
        if record is None or record.kind != KIND or record.account != account:
            return None
        return CustomerPolicy.of(record)

    def after(self, account: str, name: str | None) -> Iterator[CustomerPolicy]:
        """Yield an account's policies by name in lower case, those after one; read as taken."""
        found = self.store.named_after(KIND, account, REGION, name)
        yield from readable(CustomerPolicy.of, found)

    async def create(
        self,
        account: str,
        name: str,
        text: str,
        *,
        path: str,
        description: str | None,
        tags: Sequence[Mapping[str, str]],
        now: datetime,
    ) -> CustomerPolicy:
        """Record a policy whose grammar was checked; AlreadyExists when the name is taken."""
        first = PolicyVersion(version_id="v1", document=text, create_date=to_ms(now))
        document = PolicyDocument(
            policy_name=name,
            policy_id=unique_id("ANPA"),
            path=path,
            description=UNSET if description is None else description,
            versions=(first,),
            tags=tuple(tags),
        )
        record = Resource(
            account=account,
            region=REGION,
            kind=KIND,
            name=name.lower(),
            arn=f"arn:aws:iam::{account}:policy{path}{name}",
            created=now,
            modified=now,
            document=encode(document),
        )
        await self.store.insert(record)
        return CustomerPolicy(record, document)

    async def save(self, policy: CustomerPolicy, document: PolicyDocument) -> None:
        """Write a policy's document; Conflict when it just changed."""
        await self.store.update(policy.record, document=encode(document))

    async def delete(self, policy: CustomerPolicy) -> None:
        """Remove a policy; Conflict when it just changed, or was attached."""
        await self.store.delete(policy.record)

    def use(self, policy: CustomerPolicy) -> Change:
        """Return what is written with whatever begins to use a policy.

        Its row gets a newer version: who deletes it at the same time gets Conflict, or wins.
        """
        return Change(old=policy.record, new=self.store.newer(policy.record))
