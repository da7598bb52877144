"""Who answers questions of permission: from the policies of who asks, and of what is asked about.

Compiled once for each entity, and kept until something that they were made of changes: a change is
in force at the next request, for sessions too.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from threading import Lock

from cloche.core.arn import parse_arn
from cloche.core.authorization import Decision, PolicyKind, Question, ResourcePolicy
from cloche.core.identity import Principal
from cloche.records.store import Changed, Store
from cloche.services.iam import policies
from cloche.services.iam.attached import EntityPolicies, PolicyText
from cloche.services.iam.evaluation import Applying, Statements, compiled, decide, together

REGION = ""
IDENTITY: PolicyKind = "identity-based policy"
BOUNDARY: PolicyKind = "permissions boundary"
SESSION: PolicyKind = "session policy"
TRUST: PolicyKind = "role trust policy"
# Of what is kept: characters of the policies' texts. What they are compiled to takes some ten
# times as much memory.
MOST_TEXT = 4_000_000
LEAST_TEXT = 500  # that an entry counts for, whatever it holds
CHANGING = frozenset(("role", "user", "group", "policy"))  # kinds of resources it is made of


# Of an ARN; None: nothing is known of it.
ResourcePolicies = Callable[[str], ResourcePolicy[Statements] | None]
EMPTY = Statements(IDENTITY, ())


@dataclass(slots=True)
class Compiled:
    """What policies say, and the ARNs of all that they were read from.

    unique_id: of the role or user: one that was made again under its name is another.
    """

    identity: Statements = EMPTY
    boundary: Statements | None = None
    unique_id: str | None = None
    used: set[str] = field(default_factory=set)
    text: int = LEAST_TEXT


class Policies:
    """Answers from what is attached to roles and users (`core.authorization.Authorizer`)."""

    def __init__(self, store: Store, resource_policies: ResourcePolicies | None = None) -> None:
        self.store, self.resource_policies = store, resource_policies or nothing_known
        self.entities = EntityPolicies(store)
        self.lock = Lock()
        self.kept: OrderedDict[object, Compiled] = OrderedDict()
        self.using: dict[str, set[object]] = {}  # by the ARN of what they are made of
        self.text, self.changes = 0, 0
        store.on_change(self._changed)

    def decide(self, question: Question) -> Decision:
        """Return whether it may be done, and what decided that."""
        return decide(self.applying(question), question)

    def applying(self, question: Question) -> Applying:
        """Return the policies that apply to a question."""
        who = question.principal
        entity = self._entity(who)
        resource = self._resource(question)
        return Applying(
            identity=entity.identity,
            boundary=entity.boundary,
            session=self._session(who),
            resource=None if resource is None else resource.applying(question),
            resource_account=None if resource is None else resource.account,
        )

    # ------------------------------------------------------------------ whose policies

    def _entity(self, who: Principal) -> Compiled:
        """Return what the caller's role or user may do: nothing, when it is gone."""
        arn = who.role_arn or who.arn
        if who.kind not in ("user", "assumed-role"):
            return NOBODY
        found = self._find(arn, lambda: self._read(arn))
        gone = found.unique_id != who.user_id.partition(":")[0]
        return NOBODY if gone else found

    def _session(self, who: Principal) -> Statements | None:
        """Return what a session's policies allow; None: it has none."""
        session = who.session
        if session is None or not (session.policies or session.policy_arns):
            return None
        key = (who.account, session.policies, session.policy_arns)

        def read() -> Compiled:
            given = [PolicyText.of("", text) for text in session.policies]
            managed = [self.entities.managed(who.account, arn) for arn in session.policy_arns]
            said = [*given, *(each for each in managed if each is not None)]
            return Compiled(
                identity=together(SESSION, [statements(each, SESSION) for each in said]),
                used=set(session.policy_arns),
                text=LEAST_TEXT + sum(len(each.text) for each in said),
            )

        return self._find(key, read).identity

    def _resource(self, question: Question) -> ResourcePolicy[Statements] | None:
        """Return whose the resource is, and its policy: of a role, who may assume it."""
        arn, who = question.resource, question.principal
        if (found := self.resource_policies(arn)) is not None:
            return found if found.concerns(question) else None
        account = account_of(arn)
        if account is None or (account == who.account and not asks_for_role(question)):
            return None
        if not asks_for_role(question):
            return ResourcePolicy(account)
        if who.kind == "root":
            return None  # STS refuses it in its own words
        trust = self._find((TRUST, arn), lambda: self._trust(arn)).identity
        return ResourcePolicy(account, trust, trust)

    # ------------------------------------------------------------------ read from the store

    def _read(self, arn: str) -> Compiled:
        """Return the policies of a role or user, compiled."""
        record = self.store.find(arn)
        if record is None or record.kind not in ("role", "user"):
            return Compiled(used={arn})
        attached = self.entities.attached(record)
        found = Compiled(
            identity=together(IDENTITY, [statements(each, IDENTITY) for each in attached.identity]),
            unique_id=record.document.get("RoleId") or record.document.get("UserId"),
            used=set(attached.used),
            text=LEAST_TEXT + sum(len(each.text) for each in attached.identity),
        )
        if attached.boundary is not None:
            found.boundary = statements(attached.boundary, BOUNDARY)
            found.text += len(attached.boundary.text)
        return found

    def _trust(self, arn: str) -> Compiled:
        found = Compiled(used={arn})
        record = self.store.find(arn)
        if record is not None and record.kind == "role":
            text = record.document["AssumeRolePolicyDocument"]
            found.identity = compiled(arn, json.loads(text), TRUST)
            found.text += len(text)
        return found

    # ------------------------------------------------------------------ memory

    def _find(self, key: object, read: Callable[[], Compiled]) -> Compiled:
        """Return what is kept under a key, or read it and keep it."""
        with self.lock:
            kept = self.kept.get(key)
            if kept is not None:
                self.kept.move_to_end(key)
                return kept
            changes = self.changes
        made = read()
        with self.lock:
            # What changed while it was read may be in it or not: it is read again next time.
            if changes == self.changes:
                self._keep(key, made)
        return made

    def _keep(self, key: object, made: Compiled) -> None:
        self._drop(key)
        self.kept[key] = made
        self.text += made.text
        for arn in made.used:
            self.using.setdefault(arn, set()).add(key)
        while self.text > MOST_TEXT:
            self._drop(next(iter(self.kept)))

    def _drop(self, key: object) -> None:
        gone = self.kept.pop(key, None)
        if gone is None:
            return
        self.text -= gone.text
        for arn in gone.used:
            self.using[arn].discard(key)
            if not self.using[arn]:
                del self.using[arn]

    def _changed(self, change: Changed) -> None:
        """Forget what was made of a resource that changed."""
        resource = change.resource
        if resource.kind not in CHANGING:
            return
        with self.lock:
            self.changes += 1
            for key in tuple(self.using.get(resource.arn, ())):
                self._drop(key)


NOBODY = Compiled()


def nothing_known(_arn: str) -> None:
    """Say of every resource that it has no policy of its own."""


def statements(given: PolicyText, kind: PolicyKind) -> Statements:
    """Return a policy's statements; those of AWS's own are made once."""
    if given.name in policies.MANAGED:
        return aws(given.name, kind)
    return compiled(given.name, given.policy, kind)


@cache  # there are as many as AWS has policies here
def aws(arn: str, kind: PolicyKind) -> Statements:
    """Return the statements of a managed policy of AWS's."""
    return compiled(arn, policies.document(arn), kind)


def asks_for_role(question: Question) -> bool:
    """Tell whether a question is about a role's session: its trust policy is the resource's."""
    return question.action.startswith("sts:") and ":role/" in question.resource


def account_of(arn: str) -> str | None:
    """Return the account that an ARN names; None when it names none (AWS's policies: `aws`)."""
    try:
        account = parse_arn(arn).account
    except ValueError:
        return None
    return account if account.isdecimal() else None
