"""Whether replicas are well: pings, over connections that are kept, and what their end tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cloche.engine import Address
from cloche.services.sagemaker.serving.connection import Pinger
from cloche.services.sagemaker.serving.record import Replica

PING_TIMEOUT_S = 2.0  # a container must answer a ping within 2 s (hosting, "Your own code")
PING_PAUSE_S = 2.0  # between pings of a replica that does not answer
CALM_PING_PAUSE_S = 12.0  # of one that does
WAKE_PAUSE_S = 0.1  # between looks that something told asks for


@dataclass
class Heard:
    """When a replica was pinged and answered; event loop time."""

    pinger: Pinger
    pinged: float = float("-inf")
    answered: float = 0.0
    healthy: bool = False


class Pings:
    """Pings replicas and remembers what they said."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}  # by replica id

    async def ping(self, replica: Replica, address: Address, lost: Callable[[], None]) -> None:
        """Ping a replica, if it is time; `lost` is called when it ends the connection."""
        now = asyncio.get_running_loop().time()
        heard = self.heard.get(replica.id)
        if heard is None:
            heard = self.heard[replica.id] = Heard(Pinger(address, lost), answered=now)
        pause_s = CALM_PING_PAUSE_S if heard.healthy and heard.pinger.connected else PING_PAUSE_S
        if replica.ready_ms is not None and now - heard.pinged < pause_s:
            return
        heard.pinged = now
        heard.healthy = await heard.pinger.ask(PING_TIMEOUT_S) == 200
        if heard.healthy:
            heard.answered = asyncio.get_running_loop().time()

    def forget(self, replica: Replica) -> None:
        """Ask a replica no more."""
        heard = self.heard.pop(replica.id, None)
        if heard is not None:
            heard.pinger.close()
