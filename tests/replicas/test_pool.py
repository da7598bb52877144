"""A pool before fake workers: servers on unix sockets that answer, break and stall as told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import pytest
from fake_workers import Fake, Make, making, until

from cloche.engine import Address
from cloche.replicas.connection import HttpReply, HttpRequest, connect, request_head
from cloche.replicas.pool import Limits, NoReply, Overloaded, Pool, PoolClosed

LONGEST = 1_000_000


class HttpPool(Pool[Address, HttpRequest, HttpReply]):
    """A pool of HTTP workers, with what its owner keeps."""

    def __init__(self, timeout_s: float = 60.0, **limits: int) -> None:
        self.timeout_s = timeout_s
        self.told: list[int] = []  # requests counted, whenever there was something to look at
        chosen = Limits(**{"waiting": 100, "waiting_bytes": 1 << 20, **limits})
        way = partial(connect, longest=LONGEST)
        super().__init__("p", way, limits=chosen, in_flight={}, noted=self.tell)

    def tell(self) -> None:
        self.told.append(self.meter.requests)

    def of(self, *fakes: Fake) -> "HttpPool":
        self.publish({fake.name: fake.address for fake in fakes})
        return self

    async def call(self, body: bytes = b"x") -> tuple[bytes, str]:
        now = asyncio.get_running_loop().time()
        request = request_head("POST", "/", len(body), [("Content-Type", "a/b")]), body
        reply, worker = await self.ask(request, len(body), now, now + self.timeout_s)
        return reply.body, worker


class Fetched:
    """A link to a worker that fetches its work, as Lambda's runtime API has it."""

    def __init__(self) -> None:
        self.closed = False
        self.work: asyncio.Queue[tuple[str, asyncio.Future[HttpReply]]] = asyncio.Queue()

    def send(self, request: str) -> asyncio.Future[HttpReply]:
        future: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        self.work.put_nowait((request, future))
        return future

    def close(self) -> None:
        self.closed = True


@pytest.fixture
async def fakes() -> AsyncIterator[Make]:
    async with making() as make:
        yield make


async def test_answers_over_one_kept_connection(fakes: Make) -> None:
    one = await fakes("one")
    pool = HttpPool().of(one)
    for number in range(5):
        assert await pool.call(b"%d" % number) == (b"one:%d" % number, "one")
    assert one.connections == 1


async def test_one_request_at_a_time_and_work_is_shared(fakes: Make) -> None:
    async def slow(fake: Fake, body: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return body

    one, two = await fakes("one", slow), await fakes("two", slow)
    pool = HttpPool().of(one, two)
    await asyncio.gather(*(pool.call(b"%d" % n) for n in range(40)))
    assert (one.most_at_once, two.most_at_once) == (1, 1)
    assert len(one.seen) + len(two.seen) == 40
    assert min(len(one.seen), len(two.seen)) > 10


async def test_as_many_at_once_as_the_limits_say_at_the_least_busy_first(fakes: Make) -> None:
    gates = {b"%d" % number: asyncio.Event() for number in range(10)}

    async def held(fake: Fake, body: bytes) -> bytes:
        await gates[body].wait()
        return body

    one, two = await fakes("one", held), await fakes("two", held)
    pool = HttpPool(at_once=3).of(one, two)
    calls = {body: asyncio.ensure_future(pool.call(body)) for body in list(gates)[:7]}
    await until(lambda: len(one.seen) + len(two.seen) == 6)
    assert (len(one.seen), len(two.seen), len(pool.waiting)) == (3, 3, 1)
    assert pool.in_flight == {"one": 3, "two": 3}
    gates[b"6"].set()
    for body in two.seen[:3]:  # the first place that becomes free is the waiting one's
        gates[body].set()
        await calls[body]
    assert (await calls[b"6"])[1] == "two"
    assert pool.in_flight == {"one": 3}
    again = [asyncio.ensure_future(pool.call(body)) for body in list(gates)[7:]]
    await until(lambda: len(two.seen) == 7)
    assert (one.most_at_once, two.most_at_once) == (3, 3)
    assert len(one.seen) == 3
    for gate in gates.values():
        gate.set()
    await asyncio.gather(*calls.values(), *again)
    assert pool.in_flight == {}
    assert (one.connections, two.connections) == (3, 3)  # kept, and no more than were at once


async def test_worker_that_breaks_at_one_request_goes_on_with_the_others(fakes: Make) -> None:
    gate = asyncio.Event()

    async def mixed(fake: Fake, body: bytes) -> bytes | None:
        if body == b"poison":
            return None
        await gate.wait()
        return body

    one = await fakes("one", mixed)
    pool = HttpPool(at_once=2, attempts=1).of(one)
    good = asyncio.ensure_future(pool.call(b"good"))
    await until(lambda: bool(one.seen))
    with pytest.raises(NoReply):
        await pool.call(b"poison")
    assert (pool.workers, pool.in_flight) == ({}, {"one": 1})
    gate.set()
    assert await good == (b"good", "one")
    assert pool.in_flight == {}


async def test_crash_before_the_answer_is_tried_on_another(fakes: Make) -> None:
    async def crash(fake: Fake, body: bytes) -> None:
        return None

    bad, good = await fakes("bad", crash), await fakes("good")
    pool = HttpPool().of(bad, good)
    assert (await pool.call())[1] == "good"
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert (await pool.call())[1] == "good"  # the broken one is sent nothing more
    assert len(bad.seen) == 1


async def test_a_request_that_breaks_two_workers_is_given_up(fakes: Make) -> None:
    async def poisoned(fake: Fake, body: bytes) -> bytes | None:
        return None if body == b"poison" else body

    three = [await fakes(name, poisoned) for name in ("one", "two", "three")]
    pool = HttpPool().of(*three)
    with pytest.raises(NoReply) as failed:
        await pool.call(b"poison")
    assert (failed.value.reason, failed.value.worker) == ("broke", "two")
    assert sum(len(fake.seen) for fake in three) == 2
    assert (await pool.call(b"fine"))[1] == "three"


async def test_a_dead_worker_costs_no_attempt(fakes: Make) -> None:
    """Found dead before the request was sent: that does not count against the request."""
    dead = [await fakes(f"dead-{n}") for n in range(5)]
    pool = HttpPool().of(*dead)
    await asyncio.gather(*(pool.call(b"warm") for _ in dead))  # connections are open now
    for fake in dead:
        await fake.die()
    waiting = asyncio.ensure_future(pool.call(b"x"))
    await until(lambda: not pool.workers)
    pool.of(await fakes("alive"))
    assert (await waiting)[1] == "alive"


async def test_requests_wait_while_workers_are_replaced(fakes: Make) -> None:
    pool = HttpPool()
    waiting = [asyncio.ensure_future(pool.call(b"%d" % n)) for n in range(3)]
    await until(lambda: len(pool.waiting) == 3)
    pool.of(await fakes("new"))
    assert [(await w)[0] for w in waiting] == [b"new:0", b"new:1", b"new:2"]


async def test_full_queue_is_refused_at_once(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    one = await fakes("one", held)
    pool = HttpPool(waiting=2).of(one)
    taken = [asyncio.ensure_future(pool.call()) for _ in range(3)]
    await until(lambda: len(pool.waiting) == 2 and bool(one.seen))
    with pytest.raises(Overloaded):
        await pool.call()
    gate.set()
    await asyncio.gather(*taken)
    assert pool.meter.requests == 4
    assert (pool.meter.overloaded, pool.meter.statuses) == (1, Counter({200: 3}))


async def test_without_a_queue_what_is_too_much_is_refused(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    one = await fakes("one", held)
    pool = HttpPool(waiting=0).of(one)
    taken = asyncio.ensure_future(pool.call())
    await until(lambda: bool(one.seen))
    with pytest.raises(Overloaded):
        await pool.call()
    gate.set()
    assert (await taken)[1] == "one"
    assert (await pool.call())[1] == "one"


async def test_waiting_bodies_are_bounded(fakes: Make) -> None:
    pool = HttpPool(waiting_bytes=10)
    first = asyncio.ensure_future(pool.call(b"12345678"))
    await until(lambda: bool(pool.waiting))
    with pytest.raises(Overloaded):
        await pool.call(b"123")
    pool.of(await fakes("one"))
    await first
    assert (await pool.call(b"123"))[0] == b"one:123"


async def test_timeout_keeps_the_worker_out_until_it_is_free(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        if body == b"slow":
            await gate.wait()
        return body

    one = await fakes("one", held)
    pool = HttpPool(timeout_s=0.05).of(one)
    with pytest.raises(NoReply) as failed:
        await pool.call(b"slow")
    assert failed.value.reason == "timed out"
    assert pool.in_flight == {"one": 1}
    with pytest.raises(NoReply):
        await pool.call(b"next")  # still busy with the first
    assert one.seen == [b"slow"]
    gate.set()
    await until(lambda: pool.in_flight == {})
    assert (await pool.call(b"next"))[0] == b"next"
    assert pool.meter.unanswered == 2


async def test_answer_that_is_too_large_is_not_kept(fakes: Make) -> None:
    async def huge(fake: Fake, body: bytes) -> bytes:
        return b"x" * (LONGEST + int(body))

    one = await fakes("one", huge)
    pool = HttpPool().of(one)
    assert len((await pool.call(b"0"))[0]) == LONGEST
    with pytest.raises(NoReply) as failed:
        await pool.call(b"1")
    assert failed.value.reason == "too large"
    pool.of(one)
    assert (await pool.call(b"-1"))[1] == "one"


async def test_client_that_goes_leaves_the_worker_usable(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    one = await fakes("one", held)
    pool = HttpPool().of(one)
    gone = asyncio.ensure_future(pool.call(b"first"))
    await until(lambda: bool(one.seen))
    gone.cancel()
    next_one = asyncio.ensure_future(pool.call(b"second"))
    await asyncio.sleep(0)
    gate.set()
    assert (await next_one)[0] == b"second"
    assert one.connections == 1


async def test_client_that_goes_as_it_is_served_gives_the_worker_back(fakes: Make) -> None:
    pool, one = HttpPool(), await fakes("one")
    gone = asyncio.ensure_future(pool.call(b"first"))
    await until(lambda: bool(pool.waiting))
    pool.of(one)  # it was handed the worker, and does not know it yet
    gone.cancel()
    assert (await pool.call(b"second"))[0] == b"one:second"
    assert (one.seen, pool.in_flight, pool.waiting_bytes) == ([b"second"], {}, 0)


async def test_client_that_goes_while_the_worker_is_connected_to_breaks_nothing() -> None:
    link, tried, opened = Fetched(), asyncio.Event(), asyncio.Event()

    async def slow(name: str) -> Fetched:
        tried.set()
        await opened.wait()
        return link

    pool: Pool[str, str, HttpReply] = Pool(
        "p", slow, limits=Limits(waiting=1, waiting_bytes=1), in_flight={}, noted=lambda: None
    )
    pool.publish({"a": "a"})
    now = asyncio.get_running_loop().time()
    gone = asyncio.ensure_future(pool.ask("first", 0, now, now + 60))
    await tried.wait()
    gone.cancel()
    await asyncio.wait([gone])
    opened.set()
    call = asyncio.ensure_future(pool.ask("second", 0, now, now + 60))
    event, reply = await link.work.get()
    reply.set_result(HttpReply(200, {}, event.encode()))
    assert ((await call)[0].body, pool.in_flight) == (b"second", {})


async def test_worker_that_leaves_finishes_what_it_is_at(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    old, new = await fakes("old", held), await fakes("new")
    pool = HttpPool().of(old)
    under_way = asyncio.ensure_future(pool.call(b"first"))
    await until(lambda: bool(old.seen))
    pool.of(new)
    assert await pool.call() == (b"new:x", "new")
    assert pool.in_flight == {"old": 1}  # so the owner does not stop it yet
    gate.set()
    assert await under_way == (b"first", "old")
    assert (pool.in_flight, old.seen) == ({}, [b"first"])


async def test_any_link_will_do() -> None:
    links = {"a": Fetched(), "b": Fetched()}

    async def opened(name: str) -> Fetched:
        return links[name]

    pool: Pool[str, str, HttpReply] = Pool(
        "p",
        opened,
        limits=Limits(waiting=0, waiting_bytes=0),
        in_flight={},
        noted=lambda: None,
    )
    pool.publish({"a": "a", "b": "b"})
    now = asyncio.get_running_loop().time()
    calls = [asyncio.ensure_future(pool.ask(e, 0, now, now + 60)) for e in ("one", "two", "three")]
    for link, said in zip(links.values(), ("one", "two"), strict=True):
        event, reply = await link.work.get()
        assert event == said
        reply.set_result(HttpReply(200, {}, event.encode()))
    assert [(await call)[0].body for call in calls[:2]] == [b"one", b"two"]
    with pytest.raises(Overloaded):
        await calls[2]  # nothing waits
    pool.close()
    assert [link.closed for link in links.values()] == [True, True]


async def test_closed_pool_turns_away_what_waits() -> None:
    pool = HttpPool()
    waiting = asyncio.ensure_future(pool.call())
    await until(lambda: bool(pool.waiting))
    pool.close()
    with pytest.raises(PoolClosed):
        await waiting
    assert pool.meter.requests == 0  # it is counted where it is sent next


async def test_owner_is_told_of_the_first_count_and_of_what_broke(fakes: Make) -> None:
    pool, one = HttpPool(), await fakes("one")
    pool.of(one)
    for _ in range(3):
        await pool.call()
    assert pool.told == [1]
    read = pool.reading()
    assert (read.requests, len(read.worked_s), len(read.beside_s)) == (3, 3, 3)
    assert min(read.worked_s) > 0
    assert min(read.beside_s) >= 0
    await pool.call()
    assert pool.told == [1, 1]
    await one.die()
    waiting = asyncio.ensure_future(pool.call())
    await until(lambda: len(pool.told) == 3)
    waiting.cancel()
