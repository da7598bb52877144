"""The router before fake replicas: unix-socket servers that answer, break and stall as told."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cloche.engine import Address
from cloche.services.sagemaker.serving import router as routers
from cloche.services.sagemaker.serving.connection import MAX_ANSWER, ping
from cloche.services.sagemaker.serving.router import (
    Answered,
    Failed,
    Invocation,
    Overloaded,
    Route,
    Router,
    Target,
    UnknownEndpoint,
    UnknownVariant,
)

Handle = Callable[["Fake", bytes], Awaitable[bytes | None]]
ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"


SOCKET = "serve.sock"


def at(folder: Path) -> Address:
    """Return the address of the replica whose socket lies in a folder."""
    return Address(path=str(folder / SOCKET))


async def echo(fake: "Fake", body: bytes) -> bytes | None:
    return fake.name.encode() + b":" + body


class Fake:
    """A replica; its `handle` returns the answer's body, or None to break the connection."""

    def __init__(self, name: str, folder: Path, handle: Handle = echo) -> None:
        self.name, self.folder, self.handle = name, folder, handle
        self.seen: list[bytes] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def target(self) -> Target:
        return Target(self.name, at(self.folder))

    async def start(self) -> "Fake":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.server = await asyncio.start_unix_server(self.connection, self.folder / SOCKET)
        return self

    async def die(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        (self.folder / SOCKET).unlink(missing_ok=True)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.seen.append(body)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                answer = await self.handle(self, body)
                self.at_once -= 1
                if answer is None:
                    break
                size = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(size.encode() + answer)
        writer.close()


@pytest.fixture
async def fakes() -> AsyncIterator[Callable[..., Awaitable[Fake]]]:
    root = Path(tempfile.mkdtemp(prefix="rt"))
    made: list[Fake] = []

    async def make(name: str, handle: Handle = echo) -> Fake:
        made.append(await Fake(name, root / name, handle).start())
        return made[-1]

    yield make
    for fake in made:
        await fake.die()
    shutil.rmtree(root)


Make = Callable[..., Awaitable[Fake]]


def publish(router: Router, *fakes: Fake, variant: str = "v", weight: float = 1.0) -> None:
    router.publish(ARN, [Route(variant, weight, tuple(fake.target for fake in fakes))])


async def call(router: Router, body: bytes = b"x", variant: str | None = None) -> Answered:
    return await router.invoke(ARN, Invocation(body, (("Content-Type", "a/b"),)), variant)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what fakes do sets no event)
            await asyncio.sleep(0.005)


async def test_answers_over_one_kept_connection(fakes: Make) -> None:
    router, one = Router(), await fakes("one")
    publish(router, one)
    for number in range(5):
        answered = await call(router, b"%d" % number)
        assert answered.response.body == b"one:%d" % number
    assert (answered.variant, answered.replica, one.connections) == ("v", "one", 1)


async def test_one_request_at_a_time_and_work_is_shared(fakes: Make) -> None:
    async def slow(fake: Fake, body: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return body

    router, one, two = Router(), await fakes("one", slow), await fakes("two", slow)
    publish(router, one, two)
    await asyncio.gather(*(call(router, b"%d" % n) for n in range(40)))
    assert (one.most_at_once, two.most_at_once) == (1, 1)
    assert len(one.seen) + len(two.seen) == 40
    assert min(len(one.seen), len(two.seen)) > 10


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


async def test_crash_before_the_answer_is_tried_on_another(fakes: Make) -> None:
    async def crash(fake: Fake, body: bytes) -> None:
        return None

    router, bad, good = Router(), await fakes("bad", crash), await fakes("good")
    publish(router, bad, good)
    assert (await call(router)).replica == "good"
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert (await call(router)).replica == "good"  # the broken one is sent nothing more
    assert len(bad.seen) == 1


async def test_a_request_that_breaks_two_replicas_is_given_up(fakes: Make) -> None:
    async def poisoned(fake: Fake, body: bytes) -> bytes | None:
        return None if body == b"poison" else body

    three = [await fakes(name, poisoned) for name in ("one", "two", "three")]
    router = Router()
    publish(router, *three)
    with pytest.raises(Failed) as failed:
        await call(router, b"poison")
    assert (failed.value.reason, failed.value.replica) == ("broke", "two")
    assert sum(len(fake.seen) for fake in three) == 2
    assert (await call(router, b"fine")).replica == "three"


async def test_a_dead_replica_costs_no_attempt(fakes: Make) -> None:
    """Found dead before the request was sent: that does not count against the request."""
    router = Router()
    dead = [await fakes(f"dead-{n}") for n in range(5)]
    publish(router, *dead)
    await asyncio.gather(*(call(router, b"warm") for _ in dead))  # connections are open now
    for fake in dead:
        await fake.die()
    waiting = asyncio.ensure_future(call(router, b"x"))
    await until(lambda: not router.endpoints[ARN]["v"].workers)
    publish(router, await fakes("alive"))
    assert (await waiting).replica == "alive"


async def test_requests_wait_while_replicas_are_replaced(fakes: Make) -> None:
    router = Router()
    publish(router)
    waiting = [asyncio.ensure_future(call(router, b"%d" % n)) for n in range(3)]
    await until(lambda: len(router.endpoints[ARN]["v"].waiting) == 3)
    publish(router, await fakes("new"))
    assert [(await w).response.body for w in waiting] == [b"new:0", b"new:1", b"new:2"]


async def test_full_queue_is_refused_at_once(fakes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "WAITING", 2)
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    router, one = Router(), await fakes("one", held)
    publish(router, one)
    taken = [asyncio.ensure_future(call(router)) for _ in range(3)]
    await until(lambda: len(router.endpoints[ARN]["v"].waiting) == 2 and bool(one.seen))
    with pytest.raises(Overloaded):
        await call(router)
    gate.set()
    await asyncio.gather(*taken)
    assert router.readings(ARN)["v"].invocations == 4


async def test_waiting_bodies_are_bounded(fakes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "WAITING_BYTES", 10)
    router = Router()
    publish(router)
    first = asyncio.ensure_future(call(router, b"12345678"))
    await until(lambda: bool(router.endpoints[ARN]["v"].waiting))
    with pytest.raises(Overloaded):
        await call(router, b"123")
    publish(router, await fakes("one"))
    await first
    assert (await call(router, b"123")).response.status == 200


async def test_timeout_keeps_the_replica_out_until_it_is_free(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        if body == b"slow":
            await gate.wait()
        return body

    router, one = Router(timeout_s=0.05), await fakes("one", held)
    publish(router, one)
    with pytest.raises(Failed) as failed:
        await call(router, b"slow")
    assert failed.value.reason == "timed out"
    assert router.in_flight("one") == 1
    with pytest.raises(Failed):
        await call(router, b"next")  # still busy with the first
    assert one.seen == [b"slow"]
    gate.set()
    await until(lambda: router.in_flight("one") == 0)
    assert (await call(router, b"next")).response.body == b"next"
    assert router.readings(ARN)["v"].errors_5xx == 2


async def test_answer_that_is_too_large_is_not_kept(fakes: Make) -> None:
    async def huge(fake: Fake, body: bytes) -> bytes:
        return b"x" * (MAX_ANSWER + int(body))

    router, one = Router(), await fakes("one", huge)
    publish(router, one)
    assert len((await call(router, b"0")).response.body) == MAX_ANSWER
    with pytest.raises(Failed) as failed:
        await call(router, b"1")
    assert failed.value.reason == "too large"
    publish(router, one)
    assert (await call(router, b"-1")).replica == "one"


async def test_client_that_goes_leaves_the_replica_usable(fakes: Make) -> None:
    gate = asyncio.Event()

    async def held(fake: Fake, body: bytes) -> bytes:
        await gate.wait()
        return body

    router, one = Router(), await fakes("one", held)
    publish(router, one)
    gone = asyncio.ensure_future(call(router, b"first"))
    await until(lambda: bool(one.seen))
    gone.cancel()
    next_one = asyncio.ensure_future(call(router, b"second"))
    await asyncio.sleep(0)
    gate.set()
    assert (await next_one).response.body == b"second"
    assert one.connections == 1


async def test_weights_and_target_variant(fakes: Make) -> None:
    draws = iter([0.0, 0.24, 0.26, 0.99])
    router = Router(draw=lambda: next(draws))
    a, b = await fakes("a"), await fakes("b")
    router.publish(ARN, [Route("A", 1.0, (a.target,)), Route("B", 3.0, (b.target,))])
    assert [(await call(router)).variant for _ in range(4)] == ["A", "A", "B", "B"]
    assert (await call(router, variant="A")).replica == "a"
    meters = router.readings(ARN)
    assert {name: meter.invocations for name, meter in meters.items()} == {"A": 3, "B": 2}
    assert len(meters["A"].model_us) == 3
    assert min(meters["A"].overhead_us) >= 0
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


async def test_long_socket_paths_and_pings(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    assert await ping(at(folder), 1.0) is None
    short = Path(tempfile.mkdtemp(prefix="rt"))
    fake = await Fake("one", short).start()
    (short / SOCKET).rename(folder / SOCKET)
    assert await ping(at(folder), 1.0) == 200
    router = Router()
    router.publish(ARN, [Route("v", 1.0, (Target("one", at(folder)),))])
    assert (await call(router)).response.body == b"one:x"
    await fake.die()
    shutil.rmtree(short)
