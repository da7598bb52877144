"""A whole platform in this process, for tests: on a free port, in a thread of its own."""

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import uvloop
from botocore.config import Config as BotoConfig

from cloche.app import App as App
from cloche.app import RootKeys
from cloche.cli.aws_client import AwsClient
from cloche.cli.variables import environment
from cloche.core import home as homes
from cloche.core.authorization import Authorizer
from cloche.core.clock import Clock
from cloche.core.config import Config, Home
from cloche.environments import background

ACCOUNT = "123456789012"
PORTS = (10_000, 32_000)
NOWHERE = "127.0.0.1:9"  # no test reads the real S3
STARTS_WITHIN_S, STOPS_WITHIN_S = 60.0, 60.0


class Platform:
    """A platform that is up. `app` is the real one; touch it only from its own loop."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="platform", daemon=True)
        self.thread.start()
        try:
            self.call(self.app.start(), STARTS_WITHIN_S)
        except BaseException:
            self._end()
            raise
        self.up = True

    @property
    def address(self) -> str:
        """The URL clients use."""
        return self.app.config.address

    @property
    def home(self) -> Home:
        """The home folder."""
        return self.app.config.home

    @property
    def role_arn(self) -> str:
        """The execution role."""
        return self._client().credentials().role_arn

    def client(self, service: str, *, as_: str = "role", region: str | None = None) -> Any:
        """Return a boto3 client with a session of the execution role, or of whom `as_` names."""
        return self.session(as_, region).client(
            service,
            endpoint_url=self.address,
            # No second tries: a test sees every error.
            config=BotoConfig(proxies={}, retries={"total_max_attempts": 1}),
        )

    def session(self, as_: str = "role", region: str | None = None) -> "boto3.Session":
        """Return a boto3 session with these keys; its clients need `endpoint_url`."""
        exports = self.environment(as_)
        return boto3.Session(
            aws_access_key_id=exports["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=exports["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=exports.get("AWS_SESSION_TOKEN"),
            region_name=region or exports["AWS_REGION"],
        )

    def environment(self, as_: str = "role") -> dict[str, str]:
        """Return what `cloche env` exports."""
        return dict(environment(self._client(), as_, {}).exports)

    def call(self, coroutine: Any, timeout_s: float = 30.0) -> Any:
        """Run a coroutine on the platform's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def stop(self, *, end_gangs: bool = True) -> None:
        """Stop the server, as `cloche down` does; then end what still runs, unless asked not to."""
        if not self.up:
            return
        self.up = False
        try:
            self.call(self.app.stop(), STOPS_WITHIN_S)
        finally:
            self._end()
        if end_gangs:
            for gang in self.app.engine.adopt():
                self.app.engine.stop(gang)
            background.stop(self.home)

    def _client(self) -> AwsClient:
        server = homes.read_server(self.home)
        if server is None:
            raise RuntimeError("the platform was stopped")
        return AwsClient(self.home, server)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(STOPS_WITHIN_S)
        if not self.loop.is_running():
            self.loop.close()


@contextmanager
def start(
    home: Path,
    *,
    clock: Clock | None = None,
    root: RootKeys | None = None,
    authorizer: Authorizer | None = None,
    **config: Any,
) -> Iterator[Platform]:
    """Run a platform in `home` until the block ends. `config` are fields of core.config.Config."""
    settings = {"account": ACCOUNT, "port": free_port(), "s3_address": NOWHERE, **config}
    settled = Config(home=Home(home), **settings)
    platform = Platform(App(settled, clock=clock, root=root, authorizer=authorizer))
    try:
        yield platform
    finally:
        platform.stop()


def free_port() -> int:
    """Return a port that is free, as is the next one (for the proxy).

    It lies below those that the system gives to outgoing connections, which would take it before
    the platform does.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
