"""A pool of workers: one bounded queue; the worker that is at the fewest requests takes the next.

A worker is at one request at a time, unless the limits say more: which request broke it is then
known exactly. A request whose worker broke is tried once more on another; the second time it is
taken for the cause. Requests wait while workers are replaced.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

Reason = Literal["timed out", "broke", "too large"]


class NotDelivered(Exception):
    """The worker can't be reached: it never saw the request."""


class Broken(Exception):
    """The worker broke, or what came was no reply, before the reply was complete."""


class ReplyTooLarge(Exception):
    """The reply is longer than it may be; the rest of it was not read."""


class Overloaded(Exception):
    """The queue is full."""


class PoolClosed(Exception):
    """The pool was closed while the request waited for a worker."""


class NoReply(Exception):
    """No reply that could be passed on; "broke": the request broke every worker it went to."""

    def __init__(self, pool: str, worker: str | None, reason: Reason) -> None:
        super().__init__(f"{pool}: {reason}")
        self.pool, self.worker, self.reason = pool, worker, reason


class Counted(Protocol):
    """A reply, as far as it is counted."""

    @property
    def status(self) -> int:
        """Return its HTTP status, or what stands for one."""


PlaceT = TypeVar("PlaceT")
RequestT = TypeVar("RequestT")
SentT = TypeVar("SentT", contravariant=True)
ReplyT = TypeVar("ReplyT", bound=Counted)


class Link(Protocol[SentT, ReplyT]):
    """A way to a worker that one request at a time goes through."""

    @property
    def closed(self) -> bool:
        """Return whether nothing can be sent any more."""

    def send(self, request: SentT) -> asyncio.Future[ReplyT]:
        """Send; the future has the reply, Broken or ReplyTooLarge. NotDelivered when closed."""

    def close(self) -> None:
        """Close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a pool takes upon itself."""

    at_once: int = 1  # requests that a worker is at
    waiting: int  # requests that may wait for each worker; 0: none waits
    waiting_bytes: int  # of requests that wait, in all
    attempts: int = 2  # workers that a request may break


@dataclass
class Meter:
    """What happened at a pool since this was last read.

    Of each request that was replied to, `worked_s` is how long the worker had it, `beside_s` the
    rest of its time.
    """

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    overloaded: int = 0
    unanswered: int = 0
    worked_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)


class Worker(Generic[PlaceT, RequestT, ReplyT]):
    """One worker as its pool knows it."""

    __slots__ = ("busy", "gone", "name", "place", "spare")

    def __init__(self, name: str, place: PlaceT) -> None:
        self.name, self.place = name, place
        self.busy = 0  # requests that it is at, or about to be sent
        self.gone = False  # not published any more, or found dead
        self.spare: list[Link[RequestT, ReplyT]] = []  # kept open; no request is under way there

    def close(self) -> None:
        """Close what is kept open."""
        for link in self.spare:
            link.close()
        self.spare.clear()


class Pool(Generic[PlaceT, RequestT, ReplyT]):
    """Workers that can replace each other, and the requests that wait for one.

    connect: opens a link to a worker; NotDelivered when it can't be reached. in_flight: requests
    under way by worker, also at one that was dropped; pools may share it. noted: called when there
    is something to look at: the first count since the meter was read, a worker that broke.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[PlaceT], Awaitable[Link[RequestT, ReplyT]]],
        *,
        limits: Limits,
        in_flight: dict[str, int],
        noted: Callable[[], None],
    ) -> None:
        self.name, self.connect, self.limits = name, connect, limits
        self.in_flight, self.noted = in_flight, noted
        self.workers: dict[str, Worker[PlaceT, RequestT, ReplyT]] = {}
        # Those that may be sent more, by how many requests they are at; longest there first.
        self.free: tuple[OrderedDict[Worker[PlaceT, RequestT, ReplyT], None], ...] = tuple(
            OrderedDict() for _ in range(limits.at_once)
        )
        self.waiting: deque[asyncio.Future[Worker[PlaceT, RequestT, ReplyT]]] = deque()
        self.waiting_bytes = 0
        self.meter = Meter()

    def publish(self, ready: Mapping[str, PlaceT]) -> None:
        """Take over which workers are ready, and where they are reached; requests wait on."""
        for name in self.workers.keys() - ready.keys():
            self.drop(self.workers[name])
        for name, place in ready.items():
            if name not in self.workers:
                worker = self.workers[name] = Worker(name, place)
                self.free[0][worker] = None
        while self.waiting and (free := self._take()) is not None:
            self._release(free)

    def reading(self) -> Meter:
        """Return what happened since this was last asked, and start again."""
        found, self.meter = self.meter, Meter()
        return found

    def close(self) -> None:
        """Finish what is under way, turn away what waits."""
        for worker in list(self.workers.values()):
            self.drop(worker)
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_exception(PoolClosed())

    async def ask(
        self, request: RequestT, size: int, started: float, deadline: float
    ) -> tuple[ReplyT, str]:
        """Return a worker's reply, and the worker's name; count what came of it.

        size: the request's bytes; started, deadline: event loop time.
        Raises Overloaded (at once), PoolClosed, NoReply.
        """
        clock = asyncio.get_running_loop().time
        name, broke = None, 0
        reason: Reason = "broke"
        try:
            while broke < self.limits.attempts:
                worker = self._take() or await self._wait(size, deadline)
                name, sent = worker.name, clock()
                try:
                    reply = await self._exchange(worker, request, deadline)
                except NotDelivered:
                    continue
                except Broken:
                    broke += 1
                    continue
                now = clock()
                meter = self._count()
                meter.statuses[reply.status] += 1
                meter.worked_s.append(now - sent)
                meter.beside_s.append(sent - started)
                return reply, name
        except TimeoutError:
            reason = "timed out"
        except ReplyTooLarge:
            reason = "too large"
        except Overloaded:
            self._count().overloaded += 1
            raise
        self._count().unanswered += 1
        raise NoReply(self.name, name, reason)

    def drop(self, worker: Worker[PlaceT, RequestT, ReplyT]) -> None:
        """Send a worker nothing more; requests under way there are finished."""
        worker.gone = True
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
        if worker.busy < self.limits.at_once:
            self.free[worker.busy].pop(worker, None)
        if not worker.busy:
            worker.close()

    def _count(self) -> Meter:
        """Count one request; return where to say what came of it."""
        meter = self.meter
        meter.requests += 1
        if meter.requests == 1:
            self.noted()
        return meter

    def _broke(self, worker: Worker[PlaceT, RequestT, ReplyT]) -> None:
        """Send a worker nothing more, and say that one is missing."""
        self.drop(worker)
        self.noted()

    def _take(self) -> Worker[PlaceT, RequestT, ReplyT] | None:
        """Return the worker that is at the fewest requests, with one more; None: none may."""
        for busy, free in enumerate(self.free, 1):
            if free:
                worker, _ = free.popitem(last=False)
                worker.busy = busy
                if busy < self.limits.at_once:
                    self.free[busy][worker] = None
                self.in_flight[worker.name] = self.in_flight.get(worker.name, 0) + 1
                return worker
        return None

    async def _wait(self, size: int, deadline: float) -> Worker[PlaceT, RequestT, ReplyT]:
        """Return a worker once one is free; Overloaded, TimeoutError, PoolClosed."""
        full = len(self.waiting) >= self.limits.waiting * max(1, len(self.workers))
        if full or self.waiting_bytes + size > self.limits.waiting_bytes:
            raise Overloaded
        waiter: asyncio.Future[Worker[PlaceT, RequestT, ReplyT]]
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        self.waiting_bytes += size
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            elif waiter in self.waiting:
                self.waiting.remove(waiter)
            raise
        finally:
            self.waiting_bytes -= size

    def _release(self, worker: Worker[PlaceT, RequestT, ReplyT]) -> None:
        """A request that the worker was taken for is over: it is the next one's, or freer."""
        while self.waiting and not worker.gone:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        busy, left = worker.busy, self.in_flight[worker.name] - 1
        worker.busy = busy - 1
        if left:
            self.in_flight[worker.name] = left
        else:
            del self.in_flight[worker.name]
        if not worker.gone:
            if busy < self.limits.at_once:
                del self.free[busy][worker]
            self.free[busy - 1][worker] = None
        elif busy == 1:
            worker.close()

    async def _exchange(
        self, worker: Worker[PlaceT, RequestT, ReplyT], request: RequestT, deadline: float
    ) -> ReplyT:
        """Send to one worker and wait; whatever happens, it is released once it is free."""
        async with asyncio.timeout_at(deadline):
            link = worker.spare.pop() if worker.spare else None
            try:
                if link is None or link.closed:
                    link = await self.connect(worker.place)
                reply = link.send(request)
            except BaseException as error:
                if not isinstance(error, asyncio.CancelledError):  # the client's doing
                    self._broke(worker)
                self._release(worker)
                raise

            def free(done: asyncio.Future[ReplyT]) -> None:
                if done.exception() is not None:
                    self._broke(worker)
                if worker.gone:
                    link.close()
                else:
                    worker.spare.append(link)
                self._release(worker)

            reply.add_done_callback(free)
            return await asyncio.shield(reply)
