"""The decision: what all policies that apply to a request say together.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
"""

from dataclasses import dataclass

from cloche.core.authorization import Decision, PolicyKind, Question
from cloche.services.iam.evaluate import CompiledStatement, evaluate

Statements = tuple[CompiledStatement, ...]
TRUST: PolicyKind = "role trust policy"


@dataclass(frozen=True, slots=True)
class Applying:
    """The policies that apply to a request; None: there is none of that kind.

    resource_account: whose the resource is; None: the caller's own account.
    """

    identity: Statements
    boundary: Statements | None = None
    session: Statements | None = None
    resource: Statements | None = None
    resource_account: str | None = None


def decide(applying: Applying, question: Question) -> Decision:
    """Return whether a request is allowed, by which statements, or what is lacking."""
    who = question.principal
    own = applying.resource_account in (None, who.account)
    kinds: list[tuple[PolicyKind, Statements | None]] = [
        ("identity-based policy", applying.identity),
        ("permissions boundary", applying.boundary),
        ("session policy", applying.session),
    ]
    if who.kind == "root":
        kinds = []
    said = {kind: evaluate(policy, question) for kind, policy in kinds if policy is not None}
    of_resource = None
    if applying.resource is not None:
        of_resource = evaluate(applying.resource, question)
    every = [*([of_resource] if of_resource else []), *said.values()]
    missing = tuple(dict.fromkeys(key for each in every for key in each.missing))
    denies = tuple(by for each in every if each.verdict == "explicitDeny" for by in each.by)
    if denies:
        return Decision("explicitDeny", denies, missing)
    granted = of_resource is not None and of_resource.allowed
    if own and granted and of_resource is not None and directly(applying, question, of_resource):
        return of_resource
    for kind, each in said.items():
        if not each.allowed:
            return Decision("implicitDeny", (), missing, kind)
    trust = bool(applying.resource) and applying.resource[0].source.kind == TRUST  # type: ignore[index]
    if not granted and (trust or not own):
        return Decision("implicitDeny", (), missing, TRUST if trust else "resource-based policy")
    return Decision("allowed", tuple(by for each in every for by in each.by), missing)


def directly(applying: Applying, question: Question, said: Decision) -> bool:
    """Tell whether what allows it names the caller itself, not only its account."""
    who = question.principal
    names = {"*", who.arn, who.role_arn}
    return any(
        statement.source in said.by
        and statement.principals is not None
        and not statement.principals.get("AWS", frozenset()).isdisjoint(names)
        for statement in applying.resource or ()
    )
