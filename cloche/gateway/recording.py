"""What a call leaves in the event log: who asked what, what IAM answered, how it ended."""

from __future__ import annotations

from typing import Any

from cloche.core.authorization import Decision, Question
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.events import AnsweredQuestion, Event, Sink, answered
from cloche.events.event import short
from cloche.gateway.identify import Signer
from cloche.gateway.message import Request
from cloche.operation import Call

ASKED = 20  # questions of one call that its event holds, and as many that were refused


class Recording:
    """Hears what is asked for one call; `end` makes an event of it."""

    __slots__ = ("asked", "call", "left_out", "service", "signer")

    def __init__(self, service: str, signer: Signer) -> None:
        self.service, self.signer = service, signer
        self.call: Call[Any] | None = None
        self.asked: list[AnsweredQuestion] = []
        self.left_out = 0

    def note(self, question: Question, decision: Decision) -> None:
        """Hear a question and its answer; from the thread that the handler runs in."""
        most = ASKED if decision.allowed else 2 * ASKED
        if len(self.asked) < most:
            self.asked.append(answered(question, decision))
        else:
            self.left_out += 1

    def end(self, sink: Sink, request: Request, error: AwsError | None) -> None:
        """Keep the event of the call, which `call` describes."""
        call = self.call
        if call is None:
            return
        who, agent = call.principal, request.headers.get("user-agent")
        event = Event(
            id=call.request_id,
            time_ms=to_ms(call.now),
            account=call.account,
            region=call.region,
            service=self.service,
            operation=call.operation,
            principal=who.arn,
            kind=who.kind,
            user_id=who.user_id,
            role=who.role_arn,
            key=self.signer.credential.access_key_id,
            source=request.client,
            agent=short(agent) if agent is not None else None,
            gang=call.gang,
            asked=tuple(self.asked),
            left_out=self.left_out,
            code=error.code if error is not None else None,
            message=short(error.message) if error is not None else None,
        )
        sink.add(event)
