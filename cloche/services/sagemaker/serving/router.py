"""In front of the replicas: one bounded queue a variant, a replica that is free takes the next.

A replica answers one request at a time, so the router sends it one at a time: which request broke
a replica is then known exactly. A request whose replica broke is tried once more on another; the
second time it is taken for the cause. Requests wait while replicas are replaced.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cloche.engine import Address
from cloche.services.sagemaker.serving.connection import (
    Broken,
    Connection,
    NotDelivered,
    Response,
    TooLarge,
    connect,
    request_head,
)

TIMEOUT_S = 60.0  # a container must answer within 60 s (InvokeEndpoint, API reference)
WAITING = 100  # requests that may wait for each replica: the model servers' job_queue_size
WAITING_BYTES = 256 << 20  # of bodies that wait for one variant
ATTEMPTS = 2  # how often a request may break a replica

Reason = Literal["timed out", "broke", "too large"]


class Overloaded(Exception):
    """The variant's queue is full."""


class UnknownVariant(Exception):
    """The endpoint has no such variant (now)."""


class UnknownEndpoint(Exception):
    """The endpoint serves no more."""


class Failed(Exception):
    """No answer that could be passed on; "broke": the request broke every replica it went to."""

    def __init__(self, variant: str, replica: str | None, reason: Reason) -> None:
        super().__init__(f"{variant}: {reason}")
        self.variant, self.replica, self.reason = variant, replica, reason


@dataclass(frozen=True, slots=True)
class Target:
    """A replica that is ready: its instance id, and where it is reached."""

    replica: str
    address: Address


@dataclass(frozen=True, slots=True)
class Route:
    """A variant's share of the traffic, and its ready replicas."""

    variant: str
    weight: float
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request for the model."""

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def head(self) -> bytes:
        """Return its HTTP head."""
        return request_head("POST", "/invocations", len(self.body), self.headers)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a replica answered, and which one it was."""

    response: Response
    variant: str
    replica: str


@dataclass
class Meter:
    """What happened at one variant since it was last read; latencies in microseconds."""

    invocations: int = 0
    errors_4xx: int = 0
    errors_5xx: int = 0
    model_us: list[float] = field(default_factory=list)
    overhead_us: list[float] = field(default_factory=list)

    def count(self, status: int, model_s: float | None, total_s: float) -> None:
        """Count one invocation; `model_s` is None when no replica answered."""
        self.invocations += 1
        self.errors_4xx += 400 <= status < 500
        self.errors_5xx += status >= 500
        if model_s is not None:
            self.model_us.append(model_s * 1e6)
            self.overhead_us.append((total_s - model_s) * 1e6)


@dataclass(eq=False)
class Worker:
    """One replica as the router knows it: busy with at most one request."""

    target: Target
    connection: Connection | None = None
    gone: bool = False  # not published any more, or found dead

    def leave(self) -> None:
        """Close what is kept open."""
        self.gone = True
        if self.connection is not None:
            self.connection.close()


class Pool:
    """A variant's replicas and the requests that wait for one."""

    def __init__(self, route: Route, noted: Callable[[], None]) -> None:
        self.route, self.noted = route, noted
        self.workers: dict[str, Worker] = {}
        self.idle: deque[Worker] = deque()
        self.waiting: deque[asyncio.Future[Worker]] = deque()
        self.waiting_bytes = 0
        self.meter = Meter()

    def publish(self, route: Route) -> None:
        """Take over the variant's share and its ready replicas."""
        self.route = route
        wanted = {target.replica: target for target in route.targets}
        for replica in set(self.workers) - set(wanted):
            self.drop(self.workers[replica])
        for replica, target in wanted.items():
            if replica not in self.workers:
                worker = self.workers[replica] = Worker(target)
                self.release(worker)

    def count(self, status: int, model_s: float | None, total_s: float) -> None:
        """Count one invocation."""
        first = not self.meter.invocations
        self.meter.count(status, model_s, total_s)
        if first:
            self.noted()

    def broke(self, worker: Worker) -> None:
        """Send a replica nothing more, and say that one is missing."""
        self.drop(worker)
        self.noted()

    def drop(self, worker: Worker) -> None:
        """Send a replica nothing more; a request under way there is finished."""
        worker.gone = True
        if self.workers.get(worker.target.replica) is worker:
            del self.workers[worker.target.replica]
        if worker in self.idle:
            self.idle.remove(worker)
            worker.leave()

    def release(self, worker: Worker) -> None:
        """Give a replica that is free to the next request."""
        if worker.gone:
            worker.leave()
            return
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self.idle.append(worker)

    async def acquire(self, size: int, deadline: float) -> Worker:
        """Return a free replica; Overloaded, TimeoutError, or UnknownVariant when it goes."""
        if self.idle:
            return self.idle.popleft()
        full = len(self.waiting) >= WAITING * max(1, len(self.workers))
        if full or self.waiting_bytes + size > WAITING_BYTES:
            raise Overloaded
        waiter: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        self.waiting_bytes += size
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            elif waiter in self.waiting:
                self.waiting.remove(waiter)
            raise
        finally:
            self.waiting_bytes -= size

    def close(self) -> None:
        """The variant goes: finish what is under way, turn away what waits."""
        for worker in list(self.workers.values()):
            self.drop(worker)
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_exception(UnknownVariant())


class Router:
    """Sends invocations to replicas. The endpoints' loop publishes who is ready.

    `noted` is called with an endpoint's ARN when there is something to look at: the first count
    since `readings`, a replica that broke.
    """

    def __init__(
        self, *, draw: Callable[[], float] = random.random, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.draw, self.timeout_s = draw, timeout_s
        self.noted: Callable[[str], None] = lambda _endpoint: None
        self.endpoints: dict[str, dict[str, Pool]] = {}
        self.busy: dict[str, int] = {}  # requests under way at a replica

    def knows(self, endpoint: str) -> bool:
        """Return whether the endpoint (its ARN) was published."""
        return endpoint in self.endpoints

    def publish(self, endpoint: str, routes: Iterable[Route]) -> None:
        """Take over an endpoint's variants and their ready replicas; requests that wait go on."""
        pools = self.endpoints.setdefault(endpoint, {})
        wanted = {route.variant: route for route in routes}
        for name, route in wanted.items():
            if name not in pools:
                pools[name] = Pool(route, lambda: self.noted(endpoint))
            pools[name].publish(route)
        for name in set(pools) - set(wanted):
            pools.pop(name).close()

    def withdraw(self, endpoint: str) -> None:
        """Send an endpoint nothing more."""
        for pool in self.endpoints.pop(endpoint, {}).values():
            pool.close()

    def in_flight(self, replica: str) -> int:
        """Return how many requests a replica is at (also when it is published no more)."""
        return self.busy.get(replica, 0)

    def counted(self, endpoint: str) -> bool:
        """Return whether there is something to be read."""
        return any(pool.meter.invocations for pool in self.endpoints.get(endpoint, {}).values())

    def readings(self, endpoint: str) -> Mapping[str, Meter]:
        """Return what each variant did since this was last asked, and start anew."""
        found: dict[str, Meter] = {}
        for name, pool in self.endpoints.get(endpoint, {}).items():
            if pool.meter.invocations:
                found[name], pool.meter = pool.meter, Meter()
        return found

    async def invoke(
        self, endpoint: str, invocation: Invocation, target_variant: str | None = None
    ) -> Answered:
        """Return a replica's answer, within `timeout_s` from now.

        Raises UnknownEndpoint, UnknownVariant, Overloaded (at once), Failed.
        """
        started = asyncio.get_running_loop().time()
        while True:
            pool = self._choose(endpoint, target_variant)
            try:
                return await self._through(pool, invocation, started)
            except UnknownVariant:
                if target_variant is not None:
                    raise  # otherwise an update took the variant away: choose anew

    def _choose(self, endpoint: str, target_variant: str | None) -> Pool:
        pools = self.endpoints.get(endpoint)
        if not pools:
            raise UnknownEndpoint(endpoint)
        if target_variant is not None:
            if target_variant not in pools:
                raise UnknownVariant(target_variant)
            return pools[target_variant]
        if len(pools) == 1:
            return next(iter(pools.values()))
        ready = [pool for pool in pools.values() if pool.workers] or list(pools.values())
        return weighted(ready, self.draw())

    async def _through(self, pool: Pool, invocation: Invocation, started: float) -> Answered:
        """Try the variant's replicas until one answers; count the outcome."""
        clock = asyncio.get_running_loop().time
        variant, replica, broke = pool.route.variant, None, 0
        reason: Reason = "broke"
        head = invocation.head()
        deadline = started + self.timeout_s
        try:
            while broke < ATTEMPTS:
                worker = await pool.acquire(len(invocation.body), deadline)
                replica = worker.target.replica
                sent = clock()
                try:
                    response = await self._exchange(pool, worker, head, invocation.body, deadline)
                except NotDelivered:
                    continue
                except Broken:
                    broke += 1
                    continue
                now = clock()
                pool.count(response.status, now - sent, now - started)
                return Answered(response, variant, replica)
        except TimeoutError:
            reason = "timed out"
        except TooLarge:
            reason = "too large"
        except Overloaded:
            pool.count(503, None, clock() - started)
            raise
        pool.count(500, None, clock() - started)
        raise Failed(variant, replica, reason)

    async def _exchange(
        self, pool: Pool, worker: Worker, head: bytes, body: bytes, deadline: float
    ) -> Response:
        """Send to one replica and wait; whatever happens, it is released once it is free."""
        try:
            if worker.connection is None or worker.connection.closed:
                worker.connection = await connect(worker.target.address)
            answer = worker.connection.send(head, body)
        except BaseException:
            pool.broke(worker)
            worker.leave()
            raise
        replica = worker.target.replica
        self.busy[replica] = self.busy.get(replica, 0) + 1

        def free(done: asyncio.Future[Response]) -> None:
            self.busy[replica] -= 1
            if not self.busy[replica]:
                del self.busy[replica]
            if done.exception() is not None:
                pool.broke(worker)
            pool.release(worker)

        answer.add_done_callback(free)
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(answer)


def weighted(pools: Sequence[Pool], draw: float) -> Pool:
    """Return the pool that `draw` (from 0 to 1) falls on, each as wide as its weight."""
    total = sum(pool.route.weight for pool in pools)
    place = draw * total
    for pool in pools:
        place -= pool.route.weight
        if place < 0:
            return pool
    return pools[-1]
