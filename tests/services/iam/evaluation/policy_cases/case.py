"""A policy case: policies, a request, and what AWS's documentation says of them, by hand.

A case is run on an evaluator that it is given, so that `test_mutants` can give it broken ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloche.core.authorization import Context, Decision, PolicyKind, Question, Values, reason
from cloche.core.identity import Principal

GUIDE = "https://docs.aws.amazon.com/IAM/latest/UserGuide/"
ACCOUNT, OTHER = "111122223333", "444455556666"
NEW, OLD = "2012-10-17", "2008-10-17"
Document = dict[str, Any]

KINDS: dict[str, PolicyKind] = {
    "identity": "identity-based policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
}


class Evaluator(Protocol):
    """What `cloche.services.iam.evaluation` offers."""

    Applying: Any
    compiled: Any
    decide: Any
    together: Any


def user(name: str = "alice", account: str = ACCOUNT) -> Principal:
    return Principal(
        kind="user",
        account=account,
        arn=f"arn:aws:iam::{account}:user/{name}",
        user_id="AIDAEXAMPLE",
    )


def session(role: str = "r", name: str = "s", account: str = ACCOUNT) -> Principal:
    return Principal(
        kind="assumed-role",
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
        user_id=f"AROAEXAMPLE:{name}",
        role_arn=f"arn:aws:iam::{account}:role/{role}",
    )


def root(account: str = ACCOUNT) -> Principal:
    return Principal(
        kind="root", account=account, arn=f"arn:aws:iam::{account}:root", user_id=account
    )


def service(name: str = "sagemaker.amazonaws.com") -> Principal:
    return Principal(kind="service", account=ACCOUNT, arn=name, user_id="")


ANONYMOUS = Principal(kind="anonymous", account="", arn="*", user_id="anonymous")
ALICE, SESSION, ROOT, SERVICE = user(), session(), root(), service()


@dataclass(frozen=True)
class Case:
    """One case.

    policies: documents by kind (`identity`, `boundary`, `session`, `resource`, `trust`).
    expected: "allowed", or how the refusal's text goes on.
    by: the Sids of the statements that decided, and missing: the keys that were missing, where
    the case is about them.
    """

    page: str
    name: str
    expected: str
    policies: Mapping[str, Document | Sequence[Document]]
    action: str = "s3:GetObject"
    resource: str = "arn:aws:s3:::bucket/key"
    who: Principal = ALICE
    keys: Mapping[str, Values] = field(default_factory=dict)
    owner: str | None = None
    by: tuple[str | None, ...] | None = None
    missing: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.page.removeprefix(GUIDE)}: {self.name}"

    def decision(self, evaluator: Evaluator) -> Decision:
        """Return what an evaluator answers."""
        made: dict[str, Any] = {}
        for key, documents in self.policies.items():
            several = [documents] if isinstance(documents, dict) else documents
            kind = KINDS[key]
            compiled = [evaluator.compiled(f"{key}-{n}", d, kind) for n, d in enumerate(several)]
            made["resource" if key == "trust" else key] = evaluator.together(kind, compiled)
        made.setdefault("identity", evaluator.together(KINDS["identity"], []))
        question = Question(self.who, self.action, self.resource, Context(self.keys))
        decision: Decision = evaluator.decide(
            evaluator.Applying(resource_account=self.owner, **made), question
        )
        return decision

    def wrong(self, evaluator: Evaluator) -> str | None:
        """Return what is wrong with an evaluator's answer; None: nothing."""
        question = Question(self.who, self.action, self.resource)
        try:
            decision = self.decision(evaluator)
            found = "allowed" if decision.allowed else reason(question, decision)
        except Exception as error:  # a broken evaluator may raise anything
            return f"raises {error!r}"
        if found != self.expected:
            return f"{found!r} instead of {self.expected!r}"
        by = tuple(statement.sid for statement in decision.by)
        if self.by is not None and self.by != by:
            return f"decided by {by}"
        if self.missing is not None and self.missing != decision.missing:
            return f"missing {decision.missing}"
        return None


# ---------------------------------------------------------------------- short ways to write them


def document(*statements: Document, version: str | None = NEW) -> Document:
    made: Document = {"Statement": list(statements)}
    return made if version is None else {"Version": version, **made}


def statement(effect: str = "Allow", **more: Any) -> Document:
    """A statement on everything where nothing else is said."""
    made: Document = {"Effect": effect, **more}
    if "NotAction" not in made:
        made.setdefault("Action", "*")
    if "NotResource" not in made:
        made.setdefault("Resource", "*")
    return made


def implicit(kind: str, action: str = "s3:GetObject") -> str:
    return f"because no {KINDS[kind]} allows the {action} action"


EXPLICIT = {
    "identity": "with an explicit deny in an identity-based policy",
    "boundary": "with an explicit deny in a permissions boundary",
    "session": "with an explicit deny in a session policy",
    "resource": "with an explicit deny in a resource-based policy",
    "trust": "with an explicit deny in the role trust policy",
}
NOBODY = implicit("identity")
MATCH, NO = True, False
Several = str | Sequence[str] | bool | int
Row = tuple[str, Several, Values | None, bool]  # operator, the policy's value, the request's, holds


def condition(page: str, rows: Sequence[Row], key: str = "aws:Key", **more: Any) -> list[Case]:
    """Return two cases a row: the condition in an Allow, and in a Deny beside an Allow of all."""
    cases = []
    for operator, wanted, actual, holds in rows:
        written = wanted if isinstance(wanted, str | bool | int) else list(wanted)
        block = {operator: {key: written}}
        keys = {} if actual is None else {key.lower(): actual}
        name = f"{operator} {wanted!r}, request {actual!r}"
        allow, deny = statement(Condition=block), statement("Deny", Condition=block)
        cases += [
            Case(
                page,
                f"{name}: Allow",
                "allowed" if holds else NOBODY,
                {"identity": document(allow)},
                keys=keys,
                missing=(key,) if actual in (None, ()) else (),
                **more,
            ),
            Case(
                page,
                f"{name}: Deny",
                EXPLICIT["identity"] if holds else "allowed",
                {"identity": document(statement(), deny)},
                keys=keys,
                **more,
            ),
        ]
    return cases
