"""What a role or user really did, by the event log."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloche.events import Event, EventLog, Search
from cloche.services.iam.suggestion import Used, form

WITHIN_S = 20.0
MOST = 10_000  # roles and users
EACH = 10_000  # resources of an action; further ones are kept as their form


@dataclass(slots=True)
class ActionsUsed:
    """What was allowed, what was refused, and how often each action was asked for.

    complete: whether all events of that time were looked through.
    """

    done: Used = field(default_factory=Used)
    refused: Used = field(default_factory=Used)
    counts: dict[str, int] = field(default_factory=dict)
    events: int = 0
    complete: bool = True

    def add(self, event: Event) -> None:
        """Add what one event did."""
        self.events += 1
        for asked in event.asked:
            used = self.done if asked.verdict == "allowed" else self.refused
            many = len(used.resources.get(asked.action, ())) >= EACH
            resource = form(asked.resource) if many else asked.resource
            used.add(asked.action, resource, asked.context)
            self.counts[asked.action] = self.counts.get(asked.action, 0) + 1


def usage(log: EventLog, arn: str, since_ms: int) -> ActionsUsed:
    """Return what the role or user of this ARN did since a time."""
    found = ActionsUsed()
    log.flush()

    def fits(event: Event) -> bool:
        return arn in (event.role, event.principal)

    try:
        for event in log.find(Search(fits, since_ms, needle=arn.encode()), WITHIN_S):
            found.add(event)
    except TimeoutError:
        found.complete = False
    return found


def usages(log: EventLog, since_ms: int) -> dict[str, ActionsUsed]:
    """Return what each role and user did since a time, by ARN; what came too early is left out."""
    found: dict[str, ActionsUsed] = {}
    log.flush()
    try:
        for event in log.find(Search(lambda _event: True, since_ms), WITHIN_S):
            arn = event.role or event.principal
            if arn in found or len(found) < MOST:
                found.setdefault(arn, ActionsUsed()).add(event)
    except TimeoutError:
        for one in found.values():
            one.complete = False
    return found
