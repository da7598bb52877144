"""Time as an argument: code that needs it takes a Clock, tests hand in a ManualClock."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the time in UTC, in whole milliseconds as AWS's timestamps are."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC, in whole milliseconds."""
        return whole_milliseconds(datetime.now(UTC))


class ManualClock:
    """A clock that stands still until a test advances it."""

    def __init__(self, start: datetime = datetime(2021, 11, 28, 17, 26, tzinfo=UTC)) -> None:
        self.time = start

    def now(self) -> datetime:
        """Return the time it was set to."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        self.time += timedelta(seconds=seconds)


def whole_milliseconds(moment: datetime) -> datetime:
    """Return `moment` without what is finer than a millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def to_ms(moment: datetime) -> int:
    """Return milliseconds since 1970, as the database and log files keep time."""
    return round(moment.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    """Return the UTC time of `ms` milliseconds since 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC)
