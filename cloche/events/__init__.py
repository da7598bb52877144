"""Who did what: every call is an event, kept in files of bounded size, durable within a second."""

from cloche.events.event import Answered, Event, answered
from cloche.events.journal import Journal, Nowhere, Search, Sink
from cloche.events.role_work import RoleWork

__all__ = ["Answered", "Event", "Journal", "Nowhere", "RoleWork", "Search", "Sink", "answered"]
