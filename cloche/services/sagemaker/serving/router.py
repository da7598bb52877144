"""From an endpoint to one of its variants, each a pool of replicas."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cloche.engine import Address
from cloche.replicas.connection import HttpReply, HttpRequest, connect, request_head
from cloche.replicas.pool import Limits, Meter, Pool, PoolClosed

TIMEOUT_S = 60.0  # a container must answer within 60 s (InvokeEndpoint, API reference)
MAX_ANSWER = 6_291_456  # bytes of a body (InvokeEndpoint's BodyBlob)
LIMITS = Limits(
    waiting=100,  # the model servers' job_queue_size
    waiting_bytes=256 << 20,
)


class UnknownVariant(Exception):
    """The endpoint has no such variant (now)."""


class UnknownEndpoint(Exception):
    """The endpoint serves no more."""


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """A variant's share of the traffic, and where its ready replicas are, by instance id."""

    variant: str
    weight: float
    ready: Mapping[str, Address] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request for the model."""

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def request(self) -> HttpRequest:
        """Return what a replica is sent."""
        head = request_head("POST", "/invocations", len(self.body), self.headers)
        return head, self.body


@dataclass(frozen=True, slots=True)
class Answered:
    """What a replica answered, and which one it was."""

    response: HttpReply
    variant: str
    replica: str


class VariantPool(Pool[Address, HttpRequest, HttpReply]):
    """A variant's replicas, and its share of the traffic."""

    weight = 0.0


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
        self.endpoints: dict[str, dict[str, VariantPool]] = {}
        self.busy: dict[str, int] = {}  # requests under way at a replica

    def knows(self, endpoint: str) -> bool:
        """Return whether the endpoint (its ARN) was published."""
        return endpoint in self.endpoints

    def publish(self, endpoint: str, routes: Iterable[VariantRoute]) -> None:
        """Take over an endpoint's variants and their ready replicas; requests that wait go on."""
        pools = self.endpoints.setdefault(endpoint, {})
        wanted = {route.variant: route for route in routes}
        for name, route in wanted.items():
            if name not in pools:
                pools[name] = self._pool(endpoint, name)
            pools[name].weight = route.weight
            pools[name].publish(route.ready)
        for name in set(pools) - set(wanted):
            pools.pop(name).close()

    def _pool(self, endpoint: str, variant: str) -> VariantPool:
        return VariantPool(
            variant,
            partial(connect, longest=MAX_ANSWER),
            limits=LIMITS,
            in_flight=self.busy,
            noted=lambda: self.noted(endpoint),
        )

    def withdraw(self, endpoint: str) -> None:
        """Send an endpoint nothing more."""
        for pool in self.endpoints.pop(endpoint, {}).values():
            pool.close()

    def in_flight(self, replica: str) -> int:
        """Return how many requests a replica is at (also when it is published no more)."""
        return self.busy.get(replica, 0)

    def counted(self, endpoint: str) -> bool:
        """Return whether there is something to be read."""
        return any(pool.meter.requests for pool in self.endpoints.get(endpoint, {}).values())

    def readings(self, endpoint: str) -> Mapping[str, Meter]:
        """Return what each variant did since this was last asked, and start again."""
        pools = self.endpoints.get(endpoint, {})
        return {name: pool.reading() for name, pool in pools.items() if pool.meter.requests}

    async def invoke(
        self, endpoint: str, invocation: Invocation, target_variant: str | None = None
    ) -> Answered:
        """Return a replica's answer, within `timeout_s` from now.

        Raises UnknownEndpoint, UnknownVariant, Overloaded (at once), NoReply.
        """
        started = asyncio.get_running_loop().time()
        request, size = invocation.request(), len(invocation.body)
        while True:
            pool = self._choose(endpoint, target_variant)
            try:
                reply, replica = await pool.ask(request, size, started, started + self.timeout_s)
            except PoolClosed as error:
                if target_variant is not None:
                    raise UnknownVariant(target_variant) from error
                continue  # an update took the variant away: choose again
            return Answered(reply, pool.name, replica)

    def _choose(self, endpoint: str, target_variant: str | None) -> VariantPool:
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


def weighted(pools: Sequence[VariantPool], draw: float) -> VariantPool:
    """Return the pool that `draw` (from 0 to 1) falls on, each as wide as its weight."""
    total = sum(pool.weight for pool in pools)
    place = draw * total
    for pool in pools:
        place -= pool.weight
        if place < 0:
            return pool
    return pools[-1]
