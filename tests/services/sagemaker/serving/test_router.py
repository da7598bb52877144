"""The router before fake replicas: which variant is asked, and how updates go."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fake_workers import Fake, Make, making, until

from cloche.services.sagemaker.serving.router import (
    Answered,
    Invocation,
    Router,
    UnknownEndpoint,
    UnknownVariant,
    VariantRoute,
)

ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"


@pytest.fixture
async def fakes() -> AsyncIterator[Make]:
    async with making() as make:
        yield make


def publish(router: Router, *fakes: Fake, variant: str = "v", weight: float = 1.0) -> None:
    ready = {fake.name: fake.address for fake in fakes}
    router.publish(ARN, [VariantRoute(variant, weight, ready)])


async def call(router: Router, body: bytes = b"x", variant: str | None = None) -> Answered:
    return await router.invoke(ARN, Invocation(body, (("Content-Type", "a/b"),)), variant)


async def test_answers_over_one_kept_connection(fakes: Make) -> None:
    router, one = Router(), await fakes("one")
    publish(router, one)
    for number in range(5):
        answered = await call(router, b"%d" % number)
        assert answered.response.body == b"one:%d" % number
    assert (answered.variant, answered.replica, one.connections) == ("v", "one", 1)


async def test_unknown_endpoint_and_variant(fakes: Make) -> None:
    router = Router()
    with pytest.raises(UnknownEndpoint):
        await call(router)
    publish(router, await fakes("one"))
    with pytest.raises(UnknownVariant):
        await call(router, variant="other")
    router.withdraw(ARN)
    with pytest.raises(UnknownEndpoint):
        await call(router)


async def test_weights_and_target_variant(fakes: Make) -> None:
    draws = iter([0.0, 0.24, 0.26, 0.99])
    router = Router(draw=lambda: next(draws))
    a, b = await fakes("a"), await fakes("b")
    variants = [("A", 1.0, a), ("B", 3.0, b)]
    router.publish(ARN, [VariantRoute(n, w, {f.name: f.address}) for n, w, f in variants])
    assert [(await call(router)).variant for _ in range(4)] == ["A", "A", "B", "B"]
    assert (await call(router, variant="A")).replica == "a"
    meters = router.readings(ARN)
    assert {name: meter.requests for name, meter in meters.items()} == {"A": 3, "B": 2}
    assert len(meters["A"].worked_s) == 3
    assert min(meters["A"].beside_s) >= 0
    assert router.readings(ARN) == {}


async def test_update_swaps_replicas_without_failing_requests(fakes: Make) -> None:
    router, old, new = Router(), await fakes("old"), await fakes("new")
    publish(router, old)
    stop = asyncio.Event()

    async def client() -> list[str]:
        who = []
        while not stop.is_set():
            who.append((await call(router)).replica)
        return who

    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    await until(lambda: len(old.seen) > 50)
    publish(router, new)
    await until(lambda: router.in_flight("old") == 0 and len(new.seen) > 50)
    sent = len(old.seen)
    await old.die()
    await until(lambda: len(new.seen) > 100)
    stop.set()
    for who in await asyncio.gather(*clients):
        assert who == sorted(who, reverse=True)  # old ones first, then new ones alone
    assert len(old.seen) == sent


async def test_replica_of_a_variant_that_went_is_at_its_request(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    router, old = Router(), await fakes("old", held)
    publish(router, old, variant="old")
    under_way = asyncio.ensure_future(call(router))
    await until(lambda: bool(old.seen))
    publish(router, variant="new")
    assert router.in_flight("old") == 1
    gate.set()
    assert (await under_way).replica == "old"
    assert router.in_flight("old") == 0


async def test_waiting_requests_follow_when_a_variant_goes(fakes: Make) -> None:
    router, new = Router(), await fakes("new")
    publish(router, variant="old")
    free = asyncio.ensure_future(call(router))
    bound = asyncio.ensure_future(call(router, variant="old"))
    await until(lambda: len(router.endpoints[ARN]["old"].waiting) == 2)
    publish(router, new, variant="new")
    assert (await free).variant == "new"
    with pytest.raises(UnknownVariant):
        await bound
