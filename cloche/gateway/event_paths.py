"""`/_cloche/events`: what `cloche iam who` shows, for the home folder's owner."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cloche.core import executors, numbers
from cloche.core.errors import AwsError
from cloche.events import Event, EventLog, Search
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest, local_json

EVENTS_PATH = "/_cloche/events"
MOST = 1000  # events of one answer
WITHIN_S = 10.0
PARAMETERS = ("since_ms", "principal", "action", "refused", "limit", "id")


class EventPaths:
    """Answers what happened, from the event log."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    async def events(self, request: LocalRequest) -> Response:
        """Answer the newest events that fit: `since_ms`, `principal` and `action` (parts of them),
        `refused=true`, `id` (a request's, or how it begins), `limit`.
        """
        unknown = sorted(request.query.keys() - set(PARAMETERS))
        if unknown:
            text = f"No parameter {unknown[0]}; there are {', '.join(PARAMETERS)}"
            raise AwsError("InvalidParameter", text)
        limit = number(request.query, "limit", MOST)
        search = Search(Fitting(request.query), since_ms=number(request.query, "since_ms", 0))
        found, whole = await executors.EVENTS.run(self._find, search, limit)
        content = {"events": [msgspec.to_builtins(event) for event in found], "complete": whole}
        return local_json(200, content)

    def _find(self, search: Search, limit: int) -> tuple[list[Event], bool]:
        """Return the events, and whether all of that time were looked through."""
        self.log.flush()
        found: list[Event] = []
        try:
            for event in self.log.find(search, WITHIN_S):
                found.append(event)
                if len(found) >= limit:
                    break
        except TimeoutError:
            return found, False
        return found, True


def number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    """Return a number of a query; AwsError when it is none."""
    try:
        return min(numbers.integer(query.get(name, str(otherwise))), 1 << 62)
    except ValueError as error:
        raise AwsError("InvalidParameter", f"{name}: {error}") from None


class Fitting:
    """Tells whether an event is one that a query asks for."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.principal = query.get("principal", "").lower()
        self.action = query.get("action", "").lower()
        self.refused = query.get("refused") == "true"
        self.id = plain(query.get("id", ""))

    def __call__(self, event: Event) -> bool:
        """Tell it."""
        return (
            self.principal in f"{event.principal} {event.role or ''}".lower()
            and (self.action in f"{event.service}:{event.operation}".lower() or self._asked(event))
            and (event.refused or not self.refused)
            and plain(event.id).startswith(self.id)
        )

    def _asked(self, event: Event) -> bool:
        return any(self.action in each.action.lower() for each in event.asked)


def plain(id: str) -> str:
    """Return a request's id as all services' ids begin: S3 shows the first part of it."""
    return id.replace("-", "").lower()
