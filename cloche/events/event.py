"""One event: a call, or what the platform did for a role, and what IAM answered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from msgspec import Struct

from cloche.core.authorization import Decision, PolicyKind, Question, Statement, Verdict

MOST_TEXT = 1024  # characters of what a client sent: an agent, a value of a condition key
MOST_KEYS = 64  # condition keys of one question
ELLIPSIS = "…"
PASS_ROLE, PASSED_TO = "iam:PassRole", "iam:passedtoservice"


class AnsweredQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question that IAM was asked, and its answer.

    context: the condition keys that were known, of what was refused; of a role that was passed,
    whom to.
    """

    action: str
    resource: str = "*"
    verdict: Verdict = "allowed"
    by: tuple[Statement, ...] = ()
    missing: tuple[str, ...] = ()
    lacking: PolicyKind = "identity-based policy"
    context: Mapping[str, str | tuple[str, ...]] = {}


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call and how it ended. `code` and `message` are those of its error; none: it succeeded.

    `left_out`: how many questions were asked besides those that are here.
    """

    id: str  # the request's
    time_ms: int  # since 1970
    account: str
    region: str
    service: str  # as endpoints name it: "sagemaker", "s3", "iam"
    operation: str  # "CreateTrainingJob"
    principal: str  # the ARN that GetCallerIdentity answers
    kind: str  # "root", "user", "assumed-role", "service", "anonymous"
    user_id: str = ""
    role: str | None = None  # the role's ARN, behind a session
    key: str | None = None  # the access key's id
    source: str | None = None  # the address it came from; None: the platform itself
    agent: str | None = None
    gang: str | None = None  # the job or replica it came from
    asked: tuple[AnsweredQuestion, ...] = ()
    left_out: int = 0
    code: str | None = None
    message: str | None = None

    @property
    def refused(self) -> bool:
        """Whether IAM said no to any of it."""
        return any(each.verdict != "allowed" for each in self.asked)


def answered(question: Question, decision: Decision) -> AnsweredQuestion:
    """Return a question and its answer as an event holds them."""
    refused = not decision.allowed
    return AnsweredQuestion(
        action=question.action,
        resource=short(question.resource),
        verdict=decision.verdict,
        by=decision.by[:10],
        missing=decision.missing[:10] if refused else (),
        lacking=decision.lacking,
        context=known(question.context) if refused else passed_to(question),
    )


def passed_to(question: Question) -> dict[str, str | tuple[str, ...]]:
    """Return the service that a role was passed to."""
    value = question.context.get(PASSED_TO) if question.action == PASS_ROLE else None
    return {} if value is None else {PASSED_TO: value}


def known(context: Mapping[str, Any]) -> dict[str, str | tuple[str, ...]]:
    """Return the condition keys that have a value, long ones cut."""
    return {
        short(name): short(value)
        if isinstance(value, str)
        else tuple(short(each) for each in value[:MOST_KEYS])
        for name, value in islice(context.items(), MOST_KEYS)
    }


def short(text: str) -> str:
    """Return text, cut where it is long."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + ELLIPSIS
