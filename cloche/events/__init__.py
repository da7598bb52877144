"""Who did what: every call is an event, kept in files of bounded size, durable within a second."""

from cloche.events.event import PASS_ROLE, PASSED_TO, AnsweredQuestion, Event, answered
from cloche.events.event_log import EventLog, Nowhere, Search, Sink
from cloche.events.role_work import RoleWork

__all__ = [
    "PASSED_TO",
    "PASS_ROLE",
    "AnsweredQuestion",
    "Event",
    "EventLog",
    "Nowhere",
    "RoleWork",
    "Search",
    "Sink",
    "answered",
]
