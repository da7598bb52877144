"""Why IAM answered as it did: the statements that speak of the action, one by one, and the smallest
statement that would have allowed it.
"""

from __future__ import annotations

from typing import Any

from cloche.core.authorization import Decision, Question
from cloche.events import PASS_ROLE, PASSED_TO
from cloche.services.iam.evaluation import Applying, CompiledStatement
from cloche.services.iam.evaluation.principals import Grant
from cloche.services.iam.evaluation.statements import Asked
from cloche.services.iam.suggestion import statement

MOST = 50  # statements that are shown


def explained(applying: Applying, question: Question, decision: Decision) -> dict[str, Any]:
    """Return what decided a question, as JSON."""
    groups = (applying.identity, applying.boundary, applying.session, applying.resource)
    every = [one for group in groups if group is not None for one in group.all]
    about = [one for one in every if one.about(question.action.lower())]
    return {
        "principal": question.principal.arn,
        "action": question.action,
        "resource": question.resource,
        "verdict": decision.verdict,
        "lacking": decision.lacking if decision.verdict == "implicitDeny" else None,
        "looked_at": len(every),
        "statements": [shown(one, question) for one in about[:MOST]],
        "missing_keys": list(decision.missing),
        "boundary": applying.boundary is not None,
        "statement": needed(question, decision),
    }


def shown(one: CompiledStatement, question: Question) -> dict[str, Any]:
    """Return a statement, and what of it fits the question."""
    asked, source = Asked(question), one.source
    conditions = [
        {
            "key": name,
            "values": values(question, name),
            "holds": answer(asked.found[name], question.context),
        }
        for name, answer in one.conditions
    ]
    named = one.names(question.resource, question.context)
    speaks = one.grant(question.principal) is not Grant.NONE
    return {
        "policy": source.policy,
        "kind": source.kind,
        "number": source.place + 1,
        "sid": source.sid,
        "effect": "Allow" if one.allows else "Deny",
        "resource": named,
        "principal": speaks,
        "conditions": conditions,
        "applies": named and speaks and one.applies(asked),
    }


def values(question: Question, key: str) -> list[str]:
    """Return what a request has for a condition key."""
    found = question.context.get(key.lower(), ())
    return [found] if isinstance(found, str) else list(found)


def needed(question: Question, decision: Decision) -> dict[str, Any] | None:
    """Return the smallest statement that allows the request; None where no statement can."""
    if decision.verdict != "implicitDeny":
        return None
    condition = None
    service = question.context.get(PASSED_TO) if question.action == PASS_ROLE else None
    if isinstance(service, str):
        condition = {"StringEquals": {"iam:PassedToService": service}}
    made = statement([question.action], [question.resource], condition)
    if decision.lacking == "role trust policy":
        del made["Resource"]
    if decision.lacking in ("role trust policy", "resource-based policy"):
        made = {"Effect": "Allow", "Principal": principal(question), **made}
    return made


def principal(question: Question) -> object:
    """Return the Principal element that names who asks."""
    who = question.principal
    if who.kind == "anonymous":
        return "*"
    if who.kind == "service":
        return {"Service": who.arn}
    return {"AWS": who.role_arn or who.arn}
