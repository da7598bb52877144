"""Who uses which managed policy: an index in memory, made when first asked for.

After that the store's changes keep it, so that a count costs the same however much is stored. Made
of one look at all roles, users and groups; a change that this look saw already is told later, and
changes nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Literal

from cloche.core.typed import DAMAGED
from cloche.records.store import Changed, Resource, Store

HOLDERS = ("role", "user", "group")
Usage = Literal["PermissionsPolicy", "PermissionsBoundary"]


@dataclass(frozen=True, slots=True)
class Uses:
    """The managed policies of one entity, at one time of its row."""

    order: tuple[datetime, int]  # when it was made, its version: later ones win
    attached: tuple[str, ...] = ()
    boundary: str | None = None


class Attachments:
    """Knows, of each account's roles, users and groups, which managed policies they use."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = Lock()
        self.made = False
        self.uses: dict[str, Uses] = {}  # by an entity's ARN
        self.users: dict[tuple[str, str, Usage], set[str]] = defaultdict(set)
        store.on_change(self._changed)

    def of(self, account: str, policy: str, usage: Usage) -> frozenset[str]:
        """Return the ARNs of an account's entities that use a policy."""
        with self.lock:
            return frozenset(self._users(account, policy, usage))

    def count(self, account: str, policy: str, usage: Usage = "PermissionsPolicy") -> int:
        """Return how many entities use a policy."""
        with self.lock:
            return len(self._users(account, policy, usage))

    def _users(self, account: str, policy: str, usage: Usage) -> Collection[str]:
        if not self.made:
            for kind in HOLDERS:
                for record in self.store.each(kind):
                    self._note(record.account, record.arn, uses_of(record))
            self.made = True
        return self.users.get((account, policy, usage), ())

    def _changed(self, change: Changed) -> None:
        record = change.resource
        if record.kind not in HOLDERS:
            return
        with self.lock:
            if self.made:
                self._note(record.account, record.arn, uses_of(record) if change.new else None)

    def _note(self, account: str, arn: str, now: Uses | None) -> None:
        """Put an entity where it belongs (None: nowhere), unless something later is known."""
        before = self.uses.get(arn)
        if before is not None and now is not None and now.order < before.order:
            return
        for key in keys_of(account, before):
            self.users[key].discard(arn)
            if not self.users[key]:
                del self.users[key]
        for key in keys_of(account, now):
            self.users[key].add(arn)
        if now is None:
            self.uses.pop(arn, None)
        else:
            self.uses[arn] = now


def keys_of(account: str, uses: Uses | None) -> list[tuple[str, str, Usage]]:
    """Return the places of the index that an entity is in."""
    if uses is None:
        return []
    keys: list[tuple[str, str, Usage]] = [
        (account, policy, "PermissionsPolicy") for policy in uses.attached
    ]
    if uses.boundary is not None:
        keys.append((account, uses.boundary, "PermissionsBoundary"))
    return keys


def uses_of(record: Resource) -> Uses:
    """Return the managed policies of an entity; none where its row is damaged."""
    order = (record.created, record.version)
    try:
        document: Mapping[str, object] = record.document
        attached, boundary = document.get("Policies", ()), document.get("PermissionsBoundary")
    except DAMAGED:
        return Uses(order)
    policies = attached if isinstance(attached, list | tuple) else ()
    return Uses(
        order,
        tuple(each for each in policies if isinstance(each, str)),
        boundary if isinstance(boundary, str) else None,
    )
