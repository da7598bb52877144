"""`/_cloche/iam/…`: what `cloche iam` asks that no API of AWS has, for the home folder's owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, Protocol

import msgspec

from cloche.core import executors
from cloche.core.authorization import Context, Decision, Question
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.core.identity import Principal
from cloche.events import AnsweredQuestion, Event, EventLog, Search
from cloche.gateway.event_paths import WITHIN_S, Fitting, number
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest, local_json
from cloche.services.iam import Identity
from cloche.services.iam import suggestion as suggestions
from cloche.services.iam.evaluation import Applying
from cloche.services.iam.explanation import explained
from cloche.services.iam.lint import UNUSED, findings
from cloche.services.iam.usage import usage, usages

SUGGESTION_PATH = "/_cloche/iam/suggestion"
EXPLANATION_PATH = "/_cloche/iam/explanation"
FINDINGS_PATH = "/_cloche/iam/findings"
LAST = "last"


class Explains(Protocol):
    """Knows the policies that apply to a question (`services.iam.Policies`)."""

    def applying(self, question: Question) -> Applying:
        """Return them as they are now."""

    def decide(self, question: Question) -> Decision:
        """Return what they say."""


class IamPaths:
    """Answers what roles did, and what they need."""

    def __init__(self, identity: Identity, log: EventLog, account: str, policies: Explains) -> None:
        self.identity, self.log, self.account = identity, log, account
        self.policies = policies

    async def suggestion(self, request: LocalRequest) -> Response:
        """Answer the smallest policy for what the `role` (a name or ARN) did since `since_ms`."""
        asked = request.query.get("role", "")
        role = self.identity.role_by_arn(asked) or self.identity.role(self.account, asked)
        if role is None or role.record.account != self.account:
            some = islice(self.identity.roles_after(self.account, None), 20)
            names = ", ".join(each.name for each in some)
            raise AwsError("NoSuchEntity", f"There is no role {asked}. There are: {names}", 404)
        since_ms = number(request.query, "since_ms", 0)
        found = await executors.EVENTS.run(usage, self.log, role.arn, since_ms)
        content = {
            "role": role.arn,
            "name": role.name,
            "policy": suggestions.policy(found.done),
            "refused": suggestions.policy(found.refused),
            "counts": found.counts,
            "events": found.events,
            "complete": found.complete,
            "attached": role.policies,
        }
        return local_json(200, content)

    async def findings(self, request: LocalRequest) -> Response:
        """Answer what is wider, older or less safe than it needs to be."""
        return local_json(200, await executors.EVENTS.run(self._findings))

    def _findings(self) -> dict[str, Any]:
        now = self.identity.clock.now()
        used = usages(self.log, to_ms(now - UNUSED))
        found = [asdict(each) for each in findings(self.identity, self.account, used, now)]
        return {"findings": found}

    async def explanation(self, request: LocalRequest) -> Response:
        """Answer why a request (`id`; `last`: the last that was refused) was answered so by IAM.

        What it asked then is asked of the policies of now.
        """
        return local_json(200, await executors.EVENTS.run(self._explained, request.query))

    def _explained(self, query: Mapping[str, str]) -> dict[str, Any]:
        asked = query.get("id", LAST)
        self.log.flush()
        wanted = {"refused": "true"} if asked == LAST else {"id": asked}
        try:
            event = next(self.log.find(Search(Fitting(wanted)), WITHIN_S), None)
        except TimeoutError as error:
            raise AwsError("Timeout", f"{asked} was not found: {error}", 404) from None
        if event is None:
            text = "Nothing was refused yet." if asked == LAST else f"There is no request {asked}."
            raise AwsError("NoSuchRequest", text, 404)
        refused = [one for one in event.asked if one.verdict != "allowed"] or list(event.asked)
        return {
            "event": msgspec.to_builtins(event),
            "questions": [self._again(event, one) for one in refused],
        }

    def _again(self, event: Event, one: AnsweredQuestion) -> dict[str, Any]:
        """Return the explanation of one question, and what it is answered now."""
        question = Question(principal_of(event), one.action, one.resource, Context(one.context))
        then = Decision(one.verdict, one.by, one.missing, one.lacking)
        made = explained(self.policies.applying(question), question, then)
        # What a session's own policy lacked it lacks for good: events do not hold it.
        now = then if then.lacking == "session policy" else self.policies.decide(question)
        return {
            **made,
            "now": now.verdict,
            "by": [msgspec.to_builtins(each) for each in one.by],
        }


def principal_of(event: Event) -> Principal:
    """Return who asked."""
    kind: Any = event.kind
    return Principal(
        kind=kind,
        account=event.account,
        arn=event.principal,
        user_id=event.user_id,
        role_arn=event.role,
    )
