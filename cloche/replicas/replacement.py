"""When a worker is replaced, how soon, and when that is given up: pure functions.

What is known of a worker and what is seen of it go in, the time too; the caller acts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from msgspec import UNSET

from cloche.core.typed import Record

MOST_DOUBLINGS = 32  # of a pause: a float holds what comes of it
# lost: not by its own doing. silent: it answers no pings any more.
Fault = Literal["lost", "silent", "not started", "ended"]


class WorkerRecord(Record, frozen=True, kw_only=True):
    """What is remembered of one worker.

    `restarts` counts those before it that died, one after the other; `not_before_ms` is when it
    may be launched. Times are milliseconds since 1970.
    """

    id: str
    created_ms: int
    restarts: int = 0
    not_before_ms: int = 0
    launched_ms: int | None = None
    ready_ms: int | None = None  # since when it has answered pings
    left_ms: int | None = None  # since when it is to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen of one worker now.

    `healthy`: it answered the last ping. `silent_s`: seconds since it last did (or since this
    server first asked). `watched`: its end will be told. `trace`: the last line of what it left
    when it failed. `busy`: it is at a request.
    """

    process: Literal["absent", "running", "exited", "lost"]
    healthy: bool = False
    watched: bool = False
    silent_s: float = 0.0
    exit_code: int | None = None
    trace: str = ""
    busy: bool = False


ABSENT = Sight(process="absent")
AnyWorker = TypeVar("AnyWorker", bound=WorkerRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacementPolicy:
    """How patient one is with workers."""

    starts: int  # of new ones in a row that may be lost, until it is given up
    unhealthy_s: float  # without an answer to pings, after which one is replaced
    steady_s: float  # ready for so long: the next death is the first of its kind again
    first_backoff_s: float  # before the second replacement; then twice as long each time
    last_backoff_s: float
    drain_s: float  # that one on its way out gets for the requests it is at

    def is_up(self, sight: Sight) -> bool:
        """Return whether a worker may be sent requests, once it was ready."""
        return sight.process == "running" and sight.silent_s < self.unhealthy_s

    def fault(
        self, worker: WorkerRecord, sight: Sight, startup_timeout_s: float, now_ms: int
    ) -> Fault | None:
        """Return why a worker must be replaced; None while it is all right or on its way."""
        if sight.process == "running":
            if worker.ready_ms is not None:
                return None if self.is_up(sight) else "silent"
            since_ms = worker.launched_ms
            late = since_ms is not None and now_ms - since_ms > startup_timeout_s * 1000
            return "not started" if late and not sight.healthy else None
        if sight.process == "absent":
            return "lost" if worker.launched_ms is not None else None
        killed = sight.exit_code is not None and sight.exit_code < 0
        return "lost" if sight.process == "lost" or killed else "ended"

    def gives_up(self, worker: WorkerRecord, fault: Fault) -> bool:
        """Return whether a new worker that died is the last that is tried.

        What ends by its own doing will again.
        """
        return fault != "lost" or worker.restarts + 1 >= self.starts

    def successor(self, dead: AnyWorker, new_id: str, now_ms: int) -> AnyWorker:
        """Return what takes a dead worker's place: at once, then later each time."""
        steady = dead.ready_ms is not None and now_ms - dead.ready_ms >= self.steady_s * 1000
        restarts = 1 if steady else dead.restarts + 1
        wait_s = 0.0
        if restarts > 1:
            doublings = min(restarts - 2, MOST_DOUBLINGS)
            wait_s = min(self.last_backoff_s, self.first_backoff_s * 2**doublings)
        return dead.replace(
            id=new_id,
            created_ms=now_ms,
            restarts=restarts,
            not_before_ms=now_ms + round(wait_s * 1000),
            launched_ms=None,
            ready_ms=None,
            left_ms=None,
            unknown=UNSET,
        )

    def drained(self, worker: WorkerRecord, sight: Sight, now_ms: int) -> bool:
        """Return whether one on its way out may be stopped: at no request, or for too long."""
        return not sight.busy or now_ms - (worker.left_ms or 0) > self.drain_s * 1000


def due(worker: WorkerRecord, sight: Sight, now_ms: int) -> bool:
    """Return whether it is time to launch a worker."""
    waits = sight.process == "absent" and worker.launched_ms is None
    return waits and worker.not_before_ms <= now_ms


def observed(worker: AnyWorker, sight: Sight, now_ms: int) -> AnyWorker:
    """Return a worker with what is known of it now."""
    if sight.process == "absent":
        return worker
    ready_ms = worker.ready_ms
    if sight.healthy and ready_ms is None:
        ready_ms = now_ms
    return worker.replace(launched_ms=worker.launched_ms or now_ms, ready_ms=ready_ms)


def oldest_ready_first(workers: Iterable[AnyWorker]) -> list[AnyWorker]:
    """Return workers as they are kept when there are too many."""
    return sorted(workers, key=lambda w: (w.ready_ms is None, w.ready_ms or 0, w.created_ms))


def left(workers: Iterable[AnyWorker], now_ms: int) -> tuple[AnyWorker, ...]:
    """Return the workers, marked as on their way out."""
    return tuple(worker.replace(left_ms=now_ms) for worker in workers)
