"""A gateway with small fake services behind a real uvicorn, for real clients."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import uvicorn
from botocore.config import Config as BotoConfig
from recorder import Anything

from cloche.core.clock import Clock, SystemClock
from cloche.core.config import Config, Home
from cloche.core.identity import Credential, Principal
from cloche.gateway import Gateway
from cloche.gateway.shapes import api
from cloche.operation import Handler, Operation, Service
from cloche.permissions import Permission
from cloche.records.store import Store

ACCOUNT = "111122223333"
ROOT = Principal(kind="root", account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root", user_id=ACCOUNT)
KEY = Credential(
    access_key_id="AKIAEXAMPLE000000001", secret_access_key="se/cret+1", principal=ROOT
)


SESSION = boto3.session.Session()  # shared: it keeps the models it has read


@dataclass
class Keys:
    """Credentials in a dictionary."""

    known: dict[str, Credential] = field(default_factory=lambda: {KEY.access_key_id: KEY})

    def find(self, access_key_id: str) -> Credential | None:
        return self.known.get(access_key_id)

    def used(self, credential: Credential, service: str, region: str, now: datetime) -> None:
        pass


def service(name: str, handlers: Mapping[str, Handler], target: Any = None) -> Service:
    """Return a fake service; each handler takes what its operation has."""
    operations = {}
    for action_name, handler in handlers.items():
        action = api(name).action(action_name)
        assert action is not None
        names = action.input.by_name if action.input else {}
        taken = handler.__code__.co_varnames[
            : handler.__code__.co_argcount + handler.__code__.co_kwonlyargcount
        ]
        parameters = frozenset(names if handler.__code__.co_flags & 8 else set(taken) & set(names))
        needed = (Permission(f"{name}:{action_name}"),)
        operations[action_name] = Operation(handler, needed, parameters)
    return Service(name=name, operations=operations, api=target)


@dataclass
class Served:
    """A gateway that listens."""

    gateway: Gateway
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(
        self,
        name: str,
        *,
        credential: Credential = KEY,
        secret: str | None = None,
        token: str | None = None,
        url: str | None = None,
        **config: Any,
    ) -> Any:
        """Return a boto3 client of its own session, without retries."""
        return SESSION.client(
            name,
            endpoint_url=url or self.url,
            region_name="us-east-1",
            aws_access_key_id=credential.access_key_id,
            aws_secret_access_key=secret or credential.secret_access_key,
            aws_session_token=token or credential.session_token or "",
            config=BotoConfig(**{"retries": {"total_max_attempts": 1}, "proxies": {}, **config}),
        )


@contextmanager
def serving(
    folder: Path,
    *services: Service,
    keys: Keys | None = None,
    clock: Clock | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Serve the services on a free port in a thread of its own."""
    clock = clock or SystemClock()
    store = Store.open(folder / "cloche.db", clock)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    gateway = Gateway(
        {one.name: one for one in services},
        keys or Keys(),
        store=store,
        clock=clock,
        config=Config(home=Home(folder), port=port, account=ACCOUNT),
        **{"authorizer": Anything(), **options},
    )
    server = uvicorn.Server(
        uvicorn.Config(
            gateway,  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="uvloop",
            http="httptools",
        )
    )
    ready = threading.Event()

    started = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await started(sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]

    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield Served(gateway, port)
    finally:
        server.should_exit = True
        thread.join(20)
        store.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
