"""Serves the platform inside gangs' private networks, on the sockets that the engine hands out.

A door knows which gang calls, so user code needs no secret in its environment: it asks its door
for credentials, as containers on AWS ask theirs (AWS_CONTAINER_CREDENTIALS_FULL_URI).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cloche.core import executors
from cloche.core.clock import Clock
from cloche.core.errors import AwsError
from cloche.core.identity import Credential
from cloche.engine import Doors, Engine
from cloche.gateway.authority import Authority
from cloche.gateway.crowd import Crowd
from cloche.gateway.egress import Fenced
from cloche.gateway.listener import Listener
from cloche.gateway.message import Response
from cloche.gateway.mounted_apps import Asgi
from cloche.gateway.own_paths import LocalRequest, local_json
from cloche.gateway.proxy import Proxy

CREDENTIALS_PATH = "/_cloche/credentials"
# As long as a role's sessions last when nobody says otherwise.
SESSION_S = 3600
# botocore fetches new credentials when less than 15 minutes are left: it must get others then.
RENEW_BEFORE = timedelta(minutes=20)
SESSION_NAME = "SageMaker"
DOOR_SCALE = 1 / 8  # of the connections that the platform's own port keeps


class Sessions(Protocol):
    """Issues sessions of roles (the IAM service does)."""

    async def session(
        self, role_arn: str, session_name: str, duration_s: int, now: datetime
    ) -> Credential:
        """Return a new session's credential; KeyError when there is no such role."""


@dataclass
class GangCredentials:
    """The credentials of one gang: asked for when first needed, renewed in time."""

    sessions: Sessions
    clock: Clock
    role_arn: str
    current: Credential | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> Credential:
        """Return credentials that last at least RENEW_BEFORE."""
        async with self.lock:
            now = self.clock.now()
            kept = self.current
            if kept is None or kept.expires is None or kept.expires < now + RENEW_BEFORE:
                kept = await self.sessions.session(self.role_arn, SESSION_NAME, SESSION_S, now)
                self.current = kept
            return kept


@dataclass
class Door:
    """What serves one gang."""

    listener: Listener
    proxy: Proxy
    keys: GangCredentials

    async def close(self) -> None:
        """Stop serving."""
        await self.proxy.close()
        await self.listener.close(grace_s=0.0)


@dataclass
class Doorkeeper:
    """Opens and closes doors (`core.identity.GangDoors`)."""

    engine: Engine
    gateway_for: Callable[[str], Asgi]  # the platform as the door of a gang
    sessions: Sessions
    authority: Authority
    egress: Fenced
    clock: Clock
    served: dict[str, Door] = field(default_factory=dict)
    opening: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def open(self, gang: str, *, account: str, region: str, role_arn: str) -> None:
        """Serve gateway and proxy on the gang's doors; calls from there act as `role_arn`.

        Nothing happens when they are served already, or the gang does not run.
        """
        if gang in self.served:
            return
        async with self.opening.setdefault(gang, asyncio.Lock()):
            if gang in self.served:
                return
            doors = await executors.ENGINE.run(self.engine.doors, gang)
            if doors is not None:
                self.served[gang] = await self._serve(gang, doors, role_arn)

    async def close(self, gang: str) -> None:
        """Stop serving the gang."""
        door = self.served.pop(gang, None)
        self.opening.pop(gang, None)
        if door is not None:
            await door.close()

    async def close_all(self) -> None:
        """Stop serving; the gangs wait at their doors until a server opens them again."""
        for gang in list(self.served):
            await self.close(gang)

    async def credentials(self, request: LocalRequest) -> Response:
        """Answer CREDENTIALS_PATH: the calling gang's credentials; 404 for who is no gang."""
        door = self.served.get(request.gang or "")
        if door is None:
            raise AwsError("NotFound", "Only jobs and replicas have credentials here", 404)
        try:
            credential = await door.keys.get()
        except KeyError:
            text = f"The role {door.keys.role_arn} no longer exists"
            raise AwsError("NoSuchEntity", text, 404) from None
        return local_json(200, container_credentials(credential, door.keys.role_arn))

    async def _serve(self, gang: str, doors: Doors, role_arn: str) -> Door:
        listener = Listener(self.gateway_for(gang), Crowd(DOOR_SCALE))
        proxy = Proxy(listener, self.authority, self.egress, Crowd(DOOR_SCALE))
        await listener.listen(doors.platform)
        await proxy.listen(doors.proxy)
        return Door(listener, proxy, GangCredentials(self.sessions, self.clock, role_arn))


def container_credentials(credential: Credential, role_arn: str) -> dict[str, str]:
    """Return what the SDKs' container provider reads.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    assert credential.session_token is not None and credential.expires is not None
    return {
        "RoleArn": role_arn,
        "AccessKeyId": credential.access_key_id,
        "SecretAccessKey": credential.secret_access_key,
        "Token": credential.session_token,
        "Expiration": credential.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
