"""What the platform does for a role, as events: reads and writes of its jobs and replicas."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from cloche.core.authorization import Decision, Question
from cloche.core.clock import to_ms
from cloche.core.ids import request_id
from cloche.events.event import Event, answered
from cloche.events.event_log import Sink

EACH = 100  # resources of an action that have an event each; of further ones, each folder has one
FOLDERS = 10_000


class RoleWork:
    """Hears what is asked for a role. An input of a million objects makes no million events."""

    __slots__ = ("counts", "folders", "now", "sink")

    def __init__(self, sink: Sink, now: Callable[[], datetime]) -> None:
        self.sink, self.now = sink, now
        self.counts: dict[str, int] = {}
        self.folders: set[tuple[str, str]] = set()

    def note(self, question: Question, decision: Decision) -> None:
        """Hear a question and its answer; from any thread."""
        action, resource = question.action, question.resource
        count = self.counts[action] = self.counts.get(action, 0) + 1
        if count > EACH and decision.allowed:
            resource = f"{resource.rpartition('/')[0]}/*"
            if (action, resource) in self.folders or len(self.folders) >= FOLDERS:
                return
            self.folders.add((action, resource))
            question = Question(question.principal, action, resource)
        who = question.principal
        service, _, operation = action.partition(":")
        event = Event(
            id=request_id(),
            time_ms=to_ms(self.now()),
            account=who.account,
            region="",
            service=service,
            operation=operation,
            principal=who.arn,
            kind=who.kind,
            user_id=who.user_id,
            role=who.role_arn,
            asked=(answered(question, decision),),
            code=None if decision.allowed else "AccessDenied",
        )
        self.sink.add(event)
