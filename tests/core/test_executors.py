"""Threads by kind of work: a long task delays no short one."""

import ast
import asyncio
import contextvars
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

import cloche
from cloche.core import executors
from cloche.core.executors import EXECUTORS, FILES, Executor
from cloche.gateway.send import INLINE_BYTES
from cloche.testing.platform import Platform

WITHIN_S = 10.0
LONG = 100  # tasks


async def test_work_runs_on_threads_that_are_named_so() -> None:
    context = contextvars.ContextVar("context", default="")
    context.set("the caller's")
    for one in EXECUTORS:
        name, seen = await one.run(lambda: (threading.current_thread().name, context.get()))
        assert name.startswith(f"{one.name}_") and seen == "the caller's"
    assert len({one.name for one in EXECUTORS}) == len(EXECUTORS)
    await executors.close()
    left = {thread.name.rpartition("_")[0] for thread in threading.enumerate()}
    assert not left & {one.name for one in EXECUTORS}


async def test_so_many_at_a_time_as_it_has_threads() -> None:
    pair = Executor("pair", 2)
    here, go = threading.Semaphore(0), threading.Event()

    def work() -> None:
        here.release()
        go.wait(WITHIN_S)

    tasks = [asyncio.create_task(pair.run(work)) for _ in range(3)]
    for _ in range(2):
        assert await FILES.run(here.acquire, timeout=WITHIN_S)
    assert not here.acquire(blocking=False)
    go.set()
    await asyncio.gather(*tasks)
    await executors.close()


async def test_close_waits_for_what_was_submitted() -> None:
    done = threading.Event()
    FILES.submit(done.wait, 0.01)
    FILES.submit(done.set)
    await executors.close()
    assert done.is_set()
    assert await FILES.run(lambda: 1) == 1, "a later start has new threads"
    await executors.close()


async def test_what_work_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        await FILES.run(lambda: 1 // 0)
    await executors.close()


def test_threads_end_with_their_loop() -> None:
    """Who forgets `close` leaves none behind: the loop's threads go with it."""
    thread = asyncio.run(Executor("forgotten", 1).run(threading.current_thread))
    gc.collect()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


def test_nothing_else_names_threads() -> None:
    """No module hands work to the loop's own executor, where all would wait for each other."""
    folder = Path(cloche.__path__[0])
    found = [
        f"{file.relative_to(folder)}:{node.lineno}"
        for file in sorted(folder.rglob("*.py"))
        if file != Path(executors.__file__)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("to_thread", "run_in_executor")
    ]
    assert found == []


@contextmanager
def long_tasks(platform: Platform) -> Iterator[None]:
    """Have the platform do 100 pieces of long file work that don't end before the block does."""
    end, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(60)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(FILES.run(work)) for _ in range(LONG)]

    async def finish(tasks: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*tasks)

    tasks = platform.call(start())
    try:
        assert begun.wait(WITHIN_S)
        yield
    finally:
        end.set()
        platform.call(finish(tasks))


def short_tasks(platform: Platform, timeout_s: float) -> dict[str, Any]:
    """Ask for what is short; ReadTimeoutError when an answer doesn't come in time."""
    session = platform.session()
    config = Config(proxies={}, retries={"total_max_attempts": 1}, read_timeout=timeout_s)
    s3 = session.client("s3", endpoint_url=platform.address, config=config)
    sagemaker = session.client("sagemaker", endpoint_url=platform.address, config=config)
    logs = session.client("logs", endpoint_url=platform.address, config=config)
    return {
        "jobs": sagemaker.list_training_jobs()["TrainingJobSummaries"],
        "groups": logs.describe_log_groups()["logGroups"],
        "keys": [one["Key"] for one in s3.list_objects_v2(Bucket="short")["Contents"]],
        "content": s3.get_object(Bucket="short", Key="key")["Body"].read(),
    }


@pytest.fixture
def content(platform: Platform) -> bytes:
    """An object that is read by a thread."""
    content = bytes(INLINE_BYTES + 1)
    s3 = platform.client("s3")
    s3.create_bucket(Bucket="short")
    s3.put_object(Bucket="short", Key="key", Body=content)
    return content


def test_long_work_delays_no_short_work(platform: Platform, content: bytes) -> None:
    with long_tasks(platform):
        found = short_tasks(platform, WITHIN_S)
    assert found == {"jobs": [], "groups": [], "keys": ["key"], "content": content}


@pytest.mark.control("with one pool for everything, what is short waits behind what is long")
def test_with_one_pool_it_does(
    platform: Platform, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(FILES.threads) as shared:
        monkeypatch.setattr(Executor, "_pool", lambda self: shared)
        with long_tasks(platform), pytest.raises(ReadTimeoutError):
            short_tasks(platform, 1.0)
