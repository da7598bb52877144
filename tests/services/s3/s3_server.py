"""S3 alone behind the real gateway: in a thread for tests, or as a process to be killed.

python s3_server.py HOME PORT
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import uvloop
from botocore.config import Config as BotoConfig

from cloche.core import executors
from cloche.core.authorization import Authorizer
from cloche.core.clock import SystemClock
from cloche.core.config import Config, Home
from cloche.core.identity import Credential, Principal
from cloche.gateway import Gateway
from cloche.gateway.listener import Listener
from cloche.records.store import Store
from cloche.services.iam import IssuedKeys, compiled
from cloche.services.s3 import S3, BucketPolicies, service

ACCOUNT, OTHER = "111122223333", "444455556666"


def credential(access_key_id: str, account: str) -> Credential:
    return Credential(
        access_key_id=access_key_id,
        secret_access_key="secret" + account,
        principal=Principal(
            kind="root", account=account, arn=f"arn:aws:iam::{account}:root", user_id=account
        ),
    )


KEY = credential("AKIAEXAMPLE000000001", ACCOUNT)
OTHER_KEY = credential("AKIAEXAMPLE000000002", OTHER)


class Keys:
    """Two accounts' root keys."""

    def find(self, access_key_id: str) -> Credential | None:
        return {one.access_key_id: one for one in (KEY, OTHER_KEY)}.get(access_key_id)


class Running:
    """The parts of one server; made inside its event loop."""

    def __init__(self, folder: Path, port: int, authorizer: Authorizer | None = None) -> None:
        home = Home(folder)
        self.store = Store.open(home.database)
        self.s3 = S3(self.store, home.blobs)
        policies = BucketPolicies(self.s3, compiled)
        self.gateway = Gateway(
            {"s3": service(self.s3)},
            credentials=Keys(),
            store=self.store,
            clock=SystemClock(),
            config=Config(home=home, port=port, account=ACCOUNT),
            authorizer=authorizer or IssuedKeys(policies.resource_policy),
        )
        self.listener = Listener(self.gateway)

    async def close(self) -> None:
        await self.listener.close()
        self.s3.close()
        self.store.close()


def client(port: int, key: Credential = KEY, *, region: str = "us-east-1", **config: Any) -> Any:
    """Return a boto3 client; without retries, so that an error is seen as it is."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=region,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        config=BotoConfig(**{"retries": {"total_max_attempts": 1}, "proxies": {}, **config}),
    )


@dataclass
class Served:
    """A server in a thread."""

    folder: Path
    port: int
    running: Running
    loop: asyncio.AbstractEventLoop

    def client(self, key: Credential = KEY, **config: Any) -> Any:
        """Return a boto3 client; `region`, and settings of botocore."""
        return client(self.port, key, **config)

    def blobs(self) -> set[Path]:
        """Return the files of all blobs, once what is being removed is gone."""

        async def settled() -> None:
            # The threads take work in order: one job a thread passes all that waits.
            threads = executors.S3_WRITE.threads
            barrier = threading.Barrier(threads)
            await asyncio.gather(*(executors.S3_WRITE.run(barrier.wait) for _ in range(threads)))

        asyncio.run_coroutine_threadsafe(settled(), self.loop).result(20)
        return set((self.folder / "blobs").glob("??/*"))


@contextmanager
def serving(folder: Path, authorizer: Authorizer | None = None) -> Iterator[Served]:
    """Serve on a free port until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    ready: threading.Event = threading.Event()
    made: list[Served] = []
    stop: list[asyncio.Event] = []

    async def run() -> None:
        running = Running(folder, port, authorizer)
        await running.listener.listen(listening)
        stop.append(asyncio.Event())
        made.append(Served(folder, port, running, asyncio.get_running_loop()))
        ready.set()
        await stop[0].wait()
        await running.close()

    thread = threading.Thread(target=lambda: uvloop.run(run()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        made[0].loop.call_soon_threadsafe(stop[0].set)
        thread.join(20)


async def forever(folder: Path, port: int) -> None:
    running = Running(folder, port)
    await running.listener.listen(socket.create_server(("127.0.0.1", port), reuse_port=True))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(forever(Path(sys.argv[1]), int(sys.argv[2])))
