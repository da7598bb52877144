"""Who did what: every call is an event, kept in files of bounded size, durable within a second."""

from cloche.events.event import AnsweredQuestion, Event, answered
from cloche.events.event_log import EventLog, Nowhere, Search, Sink
from cloche.events.role_work import RoleWork

__all__ = [
    "AnsweredQuestion",
    "Event",
    "EventLog",
    "Nowhere",
    "RoleWork",
    "Search",
    "Sink",
    "answered",
]
