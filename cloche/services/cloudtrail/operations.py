"""LookupEvents."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloche.core import executors
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError, unsupported
from cloche.events import Event, EventLog, Search
from cloche.events.event_log import ORDER_MS
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.services.cloudtrail import history

MOST = 50  # events of a page
KEPT = timedelta(days=90)
WITHIN_S = 10.0  # a page ends early where so many events have to be looked through

# What an event is asked for an attribute: its values.
ATTRIBUTES: Mapping[str, Callable[[Event], tuple[str | None, ...]]] = {
    "EventId": lambda event: (event.id,),
    "EventName": lambda event: (event.operation,),
    "ReadOnly": lambda event: (str(history.is_read_only(event)).lower(),),
    "Username": lambda event: (history.user_name(event),),
    "ResourceType": lambda event: tuple(r.get("ResourceType") for r in history.resources(event)),
    "ResourceName": lambda event: resource_names(event),
    "EventSource": lambda event: (history.source_of(event),),
    "AccessKeyId": lambda event: (event.key,),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: at this event, or at this time where the page ended early."""

    time_ms: int
    id: str | None


@operation(permissions=[Permission("cloudtrail:LookupEvents")], on=executors.EVENTS)
def lookup_events(
    call: Call[EventLog],
    *,
    LookupAttributes: list[dict[str, str]] | None = None,
    StartTime: datetime | None = None,
    EndTime: datetime | None = None,
    EventCategory: str | None = None,
    MaxResults: int = MOST,
    NextToken: str | None = None,
) -> dict[str, Any]:
    """Return the account's management events of this region, the newest first."""
    if EventCategory is not None:
        raise unsupported(f"the event category {EventCategory}")
    if StartTime is not None and EndTime is not None and StartTime > EndTime:
        text = "The start time can't be after the end time."
        raise AwsError("InvalidTimeRangeException", text)
    wanted = attribute(LookupAttributes or [])
    asked = [LookupAttributes, str(StartTime), str(EndTime)]
    place = placed(NextToken, asked) if NextToken is not None else None
    oldest = call.now - KEPT

    def fits(event: Event) -> bool:
        ours = (event.account, event.region) == (call.account, call.region)
        return ours and history.is_management(event) and wanted(event)

    search = Search(
        fits,
        since_ms=to_ms(max(oldest, StartTime) if StartTime else oldest),
        until_ms=min(
            to_ms(EndTime) if EndTime else to_ms(call.now), place.time_ms if place else 1 << 62
        ),
    )
    events, end = page(call.service, search, place, MaxResults)
    answer: dict[str, Any] = {"Events": [history.shown(event) for event in events]}
    if end is not None:
        answer["NextToken"] = token(end, asked)
    return answer


def page(
    log: EventLog, search: Search, place: Place | None, limit: int
) -> tuple[list[Event], Place | None]:
    """Return a page's events and where it ended; None: there are no more."""
    found: list[Event] = []
    passed = place is None or place.id is None
    try:
        for event in log.find(search, WITHIN_S):
            if not passed:
                passed = place is not None and event.id == place.id
                continue
            if len(found) == limit:
                return found, Place(found[-1].time_ms + ORDER_MS, found[-1].id)
            found.append(event)
    except TimeoutError:
        if found:
            return found, Place(found[-1].time_ms + ORDER_MS, found[-1].id)
        raise AwsError(
            "OperationNotPermittedException",
            "There are too many events to look through: give a shorter time, or an attribute.",
        ) from None
    return found, None


def attribute(given: list[dict[str, str]]) -> Callable[[Event], bool]:
    """Return what tells whether an event has the attribute that is asked for."""
    if not given:
        return lambda _event: True
    if len(given) > 1:
        text = "The lookup attributes list can contain only one item."
        raise AwsError("InvalidLookupAttributesException", text)
    name, value = given[0]["AttributeKey"], given[0]["AttributeValue"]
    values = ATTRIBUTES[name]
    return lambda event: value in values(event)


def resource_names(event: Event) -> tuple[str, ...]:
    """Return the resources' ARNs, and what they end in."""
    arns = [each["ResourceName"] for each in history.resources(event)]
    return (*arns, *(arn.rpartition(":")[2].rpartition("/")[2] for arn in arns))


def token(place: Place, asked: list[Any]) -> str:
    """Return where a page ended, as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps([place.time_ms, place.id, asked]).encode()).decode()


def placed(text: str, asked: list[Any]) -> Place:
    """Return where the page before ended; AwsError for a token of another search, or of nobody."""
    try:
        time_ms, id, of = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        if of == json.loads(json.dumps(asked)) and isinstance(time_ms, int):
            return Place(time_ms, id)
    except (ValueError, TypeError, RecursionError):
        pass
    raise AwsError("InvalidNextTokenException", "Invalid token.")
