"""Whether workers are well: pings, over connections that are kept, and what their end tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cloche.engine import Address
from cloche.replicas.connection import HttpRequest, WorkerConnection, connect
from cloche.replicas.pool import Broken, NotDelivered, ReplyTooLarge

MAX_PING = 65_536  # bytes of the body of an answer to a ping; nobody reads it


class Pinger:
    """Asks one worker whether it is well, over a connection that is kept: its end tells of theirs.

    request: what is asked. lost: called when the worker ends that connection.
    """

    def __init__(
        self, address: Address, request: HttpRequest, lost: Callable[[], None] | None = None
    ) -> None:
        self.address, self.request, self.lost = address, request, lost
        self.connection: WorkerConnection | None = None

    @property
    def connected(self) -> bool:
        """Whether `lost` would be called at the worker's end."""
        return self.connection is not None and not self.connection.closed

    async def ask(self, timeout_s: float) -> int | None:
        """Return the status of the answer; None when there is none within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                connection = self.connection
                if connection is None or connection.closed:
                    connection = self.connection = await connect(self.address, MAX_PING)
                    connection.lost = self.lost
                return (await connection.send(self.request)).status
        except (NotDelivered, Broken, ReplyTooLarge, TimeoutError):
            self.close()
            return None

    def close(self) -> None:
        """Ask no more."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None


@dataclass
class Heard:
    """When a worker was pinged and answered; event loop time."""

    pinger: Pinger
    pinged: float = float("-inf")
    answered: float = 0.0
    healthy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an answer to a ping may take, and how long there is until the next ping."""

    timeout_s: float
    pause_s: float  # of a worker that does not answer
    calm_pause_s: float  # of one that does, and whose end would be told


class Pings:
    """Pings workers and remembers what they said; 200 is well."""

    def __init__(self, request: HttpRequest, pace: Pace) -> None:
        self.request, self.pace = request, pace
        self.heard: dict[str, Heard] = {}  # by worker

    async def ping(
        self, worker: str, address: Address, lost: Callable[[], None], *, ready: bool
    ) -> None:
        """Ping a worker: always until it is ready, then if it is time.

        lost: called when it ends the connection.
        """
        now, pace = asyncio.get_running_loop().time(), self.pace
        heard = self.heard.get(worker)
        if heard is None:
            pinger = Pinger(address, self.request, lost)
            heard = self.heard[worker] = Heard(pinger, answered=now)
        calm = heard.healthy and heard.pinger.connected
        if ready and now - heard.pinged < (pace.calm_pause_s if calm else pace.pause_s):
            return
        heard.pinged = now
        heard.healthy = await heard.pinger.ask(pace.timeout_s) == 200
        if heard.healthy:
            heard.answered = asyncio.get_running_loop().time()

    def forget(self, worker: str) -> None:
        """Ask a worker no more."""
        heard = self.heard.pop(worker, None)
        if heard is not None:
            heard.pinger.close()
