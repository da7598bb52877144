"""Applications mounted in the gateway: what is below a prefix is theirs, as with Starlette's Mount.

Any ASGI application, with bodies, streamed answers, WebSockets and a lifespan. Who may use it is
its own to say; that no foreign page and no sandbox reaches it is said here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from cloche.core.errors import AwsError
from cloche.gateway.body import Receive
from cloche.gateway.browser import is_passive
from cloche.gateway.limits import BODY_IDLE_S
from cloche.gateway.send import Send

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
# No bucket's name begins so, and no path of AWS's: nothing of theirs is hidden by a mount.
PREFIX = re.compile(r"(/_[A-Za-z0-9._-]+)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class MountedApp:
    """An application and where it is."""

    prefix: str
    app: Asgi
    lifespan: LifespanOn

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer; `root_path` tells it where it is, `path` stays whole."""
        inner = {
            **scope,
            "root_path": scope.get("root_path", "") + self.prefix,
            "state": self.lifespan.state.copy(),
        }
        if scope["type"] == "websocket":
            await self.app(inner, receive, send)
            return
        exchange = MountedRequest(receive, send, waits_for_100(scope["headers"]))
        await self.app(inner, exchange.receive, exchange.send)


class Mounts:
    """The mounted applications, by prefix."""

    def __init__(self) -> None:
        self.mounts: dict[str, MountedApp] = {}

    def add(self, prefix: str, app: Asgi) -> None:
        """Mount an application at a prefix that begins with `/_`, before the platform listens."""
        if not PREFIX.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is not a prefix for an application, such as /_cloche/app")
        if prefix in self.mounts:
            raise ValueError(f"there is an application at {prefix} already")
        config = uvicorn.Config(app, lifespan="auto", ws="none", log_config=None)
        self.mounts[prefix] = MountedApp(prefix, app, LifespanOn(config))
        self.mounts = dict(sorted(self.mounts.items(), key=lambda named: -len(named[0])))

    def find(self, path: str) -> MountedApp | None:
        """Return whose a path is, as sent: the longest prefix wins."""
        for prefix, mount in self.mounts.items():
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return mount
        return None

    async def start(self) -> None:
        """Start the applications; RuntimeError when one says that it can't."""
        for mount in self.mounts.values():
            await mount.lifespan.startup()
            if mount.lifespan.should_exit:
                raise RuntimeError(f"the application at {mount.prefix} did not start")

    async def close(self) -> None:
        """Stop those that were started."""
        for mount in self.mounts.values():
            if mount.lifespan.startup_event.is_set() and not mount.lifespan.should_exit:
                await mount.lifespan.shutdown()


@dataclass(slots=True)
class MountedRequest:
    """One request to an application and its answer, within the gateway's rules."""

    receive_event: Receive
    send_event: Send
    waits: bool  # for `100 Continue`: sends no body before
    whole: bool = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Return what comes next; a body that stalls is as a client that went away."""
        if self.whole:
            return await self.receive_event()
        self.waits = False
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                event = await self.receive_event()
        except TimeoutError:
            return {"type": "http.disconnect"}
        self.whole = not event.get("more_body", False)
        return event

    async def send(self, event: MutableMapping[str, Any]) -> None:
        """Send a part of the answer."""
        if event["type"] == "http.response.start":
            headers = guarded(event.get("headers", ()))
            if self.waits:  # bytes that follow a refusal would be taken for the body
                headers.append((b"connection", b"close"))
            event = {**event, "headers": headers}
        await self.send_event(event)


def guarded(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return an answer's headers: a browser takes it for what it says it is, and runs nothing that
    is in it, unless the application has a policy of its own.
    """
    kept = [(n.lower(), v) for n, v in headers if n.lower() != b"x-content-type-options"]
    kept.append((b"x-content-type-options", b"nosniff"))
    types = [value.decode("latin-1") for name, value in kept if name == b"content-type"]
    if b"content-security-policy" not in dict(kept) and not is_passive(",".join(types)):
        kept.append((b"content-security-policy", b"sandbox"))
    return kept


def waits_for_100(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether the client waits for `100 Continue`."""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)


async def refuse(send: Send, scope: Scope, error: AwsError) -> None:
    """Answer in place of an application; to a WebSocket with a status alone (403)."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = f"{error.message}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
