"""Runs every loop: load -> decide -> act -> guarded apply; with backoff.

A loop looks after one kind of resource. The reconciler calls `step` for each resource the loop
has work for: at once when a record of that kind changes, and again after the seconds that the
last `step` asked for. A step that raises is tried again, later each time; what it raised is
logged. Steps of one resource never overlap; steps of different resources run side by side.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloche.records.store import Conflict, Resource, Store

logger = logging.getLogger("cloche.reconciler")
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 60.0


class Loop(Protocol):
    """Makes the wishes of one kind of resource true."""

    kind: str

    def load(self) -> Sequence[Resource]:
        """Return the resources that are not settled."""

    async def step(self, resource: Resource) -> float | None:
        """Do what is next for one resource; return seconds until the next look.

        None: not until the record changes.
        """


@dataclass
class Watched:
    """Where one resource stands with its loop."""

    task: asyncio.Task[float | None] | None = None
    version: int = 0  # as of the last step
    due: float = 0.0  # event loop time of the next step; infinity: when the record changes
    failures: int = 0


@dataclass
class Reconciler:
    """Drives loops until cancelled."""

    store: Store
    loops: Sequence[Loop]
    watched: dict[tuple[str, str], Watched] = field(default_factory=dict)

    async def run(self) -> None:
        """Run until cancelled; steps under way are cancelled too and resumed after a restart."""
        events = asyncio.get_running_loop()
        wake = asyncio.Event()

        def changed(_kind: str) -> None:
            events.call_soon_threadsafe(wake.set)

        self.store.on_change(changed)
        try:
            while True:
                wake.clear()
                pause = self._turn(events.time(), wake)
                # Not wait_for: before Python 3.12 it loses a cancellation that meets its result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await wake.wait()
        finally:
            for watched in self.watched.values():
                if watched.task is not None:
                    watched.task.cancel()

    def _turn(self, now: float, wake: asyncio.Event) -> float | None:
        """Start the steps that are due; return seconds until the next one is."""
        next_due = float("inf")
        alive: set[tuple[str, str]] = set()
        for loop in self.loops:
            for resource in loop.load():
                key = (loop.kind, resource.arn)
                alive.add(key)
                watched = self.watched.setdefault(key, Watched())
                if watched.task is not None:
                    if not watched.task.done():
                        continue
                    self._settle(watched, resource, now)
                if resource.version != watched.version or watched.due <= now:
                    watched.version = resource.version
                    watched.task = asyncio.create_task(loop.step(resource))
                    watched.task.add_done_callback(lambda _task: wake.set())
                else:
                    next_due = min(next_due, watched.due)
        for key in set(self.watched) - alive:
            task = self.watched[key].task
            if task is None or task.done():
                del self.watched[key]
        return None if next_due == float("inf") else max(0.0, next_due - now)

    def _settle(self, watched: Watched, resource: Resource, now: float) -> None:
        task, watched.task = watched.task, None
        assert task is not None
        error = task.exception()
        if error is None:
            pause = task.result()
            watched.failures = 0
            watched.due = float("inf") if pause is None else now + pause
        elif isinstance(error, Conflict):
            watched.due = now  # somebody wrote in between: look again
        else:
            watched.failures += 1
            pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (watched.failures - 1))
            watched.due = now + pause
            logger.error("%s: step failed, again in %.1f s", resource.arn, pause, exc_info=error)
