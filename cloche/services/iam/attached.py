"""All policies of an entity, in one place: what enforcement and simulation both read.

A role's or group's: attached managed policies and inline ones; a user's: its groups' besides.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from cloche.core.typed import decode
from cloche.records.store import Resource, Store
from cloche.services.iam import policies
from cloche.services.iam.customer_policies import CustomerPolicies
from cloche.services.iam.record import PolicyHolder

REGION = ""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy: what decisions call it (of a managed one the ARN), its text, and what it says."""

    name: str
    text: str
    policy: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, text: str) -> "PolicyText":
        """Return a policy whose grammar was checked."""
        return cls(name, text, json.loads(text))


@dataclass(frozen=True, slots=True)
class Attached:
    """What an entity may do: its policies, and the boundary where it has one.

    used: the ARNs of all that was read: the entity, its groups, customer managed policies. What
    this was made of is as it was until one of them changes.
    """

    identity: tuple[PolicyText, ...]
    boundary: PolicyText | None
    used: frozenset[str]


class EntityPolicies:
    """Finds the policies of roles, users and groups by what is recorded."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.customer = CustomerPolicies(store)

    def attached(self, record: Resource) -> Attached:
        """Return the policies of a role, user or group; BadRecord where one can't be read.

        A policy that can't be read is never passed over: it might hold a Deny.
        """
        used = {record.arn}
        holder = decode(PolicyHolder, record.document, record.arn)
        identity = list(self._own(record, holder, used))
        for name in holder.groups:
            group = self.store.get("group", record.account, REGION, name.lower())
            if group is not None:
                used.add(group.arn)
                held = decode(PolicyHolder, group.document, group.arn)
                identity += self._own(group, held, used)
        boundary = holder.permissions_boundary
        found = None
        if boundary is not UNSET:
            used.add(boundary)
            found = self.managed(record.account, boundary)
            # A boundary that is gone allows nothing: it is not as if there had been none.
            found = found or PolicyText.of(boundary, '{"Statement": []}')
        return Attached(tuple(identity), found, frozenset(used))

    def managed(self, account: str, arn: str) -> PolicyText | None:
        """Return what a managed policy says: one of AWS's, or its default version; or None."""
        if arn in policies.MANAGED:
            return PolicyText(arn, policies.text(arn), policies.document(arn))
        found = self.customer.find(account, arn)
        return None if found is None else PolicyText.of(arn, found.default.document)

    def _own(self, record: Resource, holder: PolicyHolder, used: set[str]) -> Iterator[PolicyText]:
        """Yield the policies that are the entity's own, managed ones first."""
        for arn in holder.policies:
            used.add(arn)
            found = self.managed(record.account, arn)
            if found is not None:
                yield found
        name = policies.name_of(record.arn)
        for inline, text in sorted(holder.inline.items()):
            yield PolicyText.of(f"{record.kind}_{name}_{inline}", text)
