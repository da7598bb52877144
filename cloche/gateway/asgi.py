"""The gateway: an ASGI application that turns HTTP into calls and answers into HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from cloche.core import numbers
from cloche.core.authorization import Authorizer
from cloche.core.clock import Clock
from cloche.core.config import Config
from cloche.core.errors import AwsError
from cloche.core.identity import CredentialLookup
from cloche.gateway.body import Disconnected, RawBody, Receive
from cloche.gateway.browser import check_place, guard
from cloche.gateway.exchange import Exchange, Parts
from cloche.gateway.message import Request, Response
from cloche.gateway.mounted_apps import Asgi, MountedApp, Mounts, Scope, refuse
from cloche.gateway.own_paths import OwnPaths
from cloche.gateway.passing import Passing
from cloche.gateway.routing import Directory
from cloche.gateway.send import Send, discard, send_response
from cloche.gateway.shapes import api
from cloche.operation import Service
from cloche.records.store import Store

logger = logging.getLogger("cloche.gateway")

LONGEST_BODY = 1 << 62
MAX_SKIPPED_BYTES = 8 * 1024 * 1024  # read and dropped, so that a refusal leaves the connection


class Gateway:
    """Serves AWS's APIs for `services` (by botocore's names) to whoever `credentials` knows, as far
    as `authorizer` allows.

    `local` answers the platform's own paths, `/_cloche/…`; `mounts` are applications.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        credentials: CredentialLookup,
        *,
        store: Store,
        clock: Clock,
        config: Config,
        authorizer: Authorizer,
        passing: Passing | None = None,
    ) -> None:
        self.config = config
        apis = {name: api(name) for name in services}
        directory = Directory(apis)
        self.parts = Parts(
            services, apis, directory, credentials, store, clock, authorizer, passing
        )
        self.local = OwnPaths(config, credentials, clock)
        self.mounts = Mounts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection scope."""
        await self.serve(scope, receive, send, None)

    def for_gang(self, gang: str) -> Asgi:
        """Return the application for a gang's door: calls carry the gang's name."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.serve(scope, receive, send, gang)

        return app

    async def serve(self, scope: Scope, receive: Receive, send: Send, gang: str | None) -> None:
        """Answer one request, whatever comes."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        request = read_head(scope)
        mount = self.mounts.find(request.path) if gang is None else None
        if mount is not None:
            await self.serve_mounted(mount, request, scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"no such thing as {scope['type']} here")
        raw = RawBody(receive, *declared_length(request))
        try:
            if request.path.startswith("/_cloche/"):
                response = await self.local.answer(request, raw, gang)
            else:
                response = await Exchange(self.parts, request, raw, gang).answer()
            try:
                await leave_clean(request, raw, response)
            except BaseException:
                await discard(response)
                raise
            guard(response.headers)
            await send_response(send, response, request.method)
        except Disconnected:
            logger.debug("%s %s: the client went away", request.method, request.path)

    async def serve_mounted(
        self, mount: MountedApp, request: Request, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Have a mounted application answer, unless a foreign page asks, or by a foreign name."""
        try:
            check_place(request, self.local.names)
        except AwsError as error:
            await refuse(send, scope, error)
        else:
            await mount.serve(scope, receive, send)


def read_head(scope: Scope) -> Request:
    """Return the request without its body."""
    sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(sent)
    if len(headers) < len(sent):
        headers = joined(sent)
    query_string = scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query_string, keep_blank_values=True) if query_string else ()
    return Request(
        method=scope.get("method", "GET"),  # a WebSocket begins with a GET
        path=scope["raw_path"].decode("latin-1").partition("?")[0] or "/",
        query_string=query_string,
        query=tuple(pairs),
        headers=headers,
        scheme=scope.get("scheme", "http"),
        client=(scope.get("client") or (None,))[0],
        tls=scope.get("state", {}).get("tls"),
    )


def joined(sent: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers of which some were sent several times, in time linear in their size."""
    several: dict[str, list[str]] = {}
    for name, value in sent:
        several.setdefault(name, []).append(value)
    return {name: ",".join(values) for name, values in several.items()}


def declared_length(request: Request) -> tuple[int | None, bool]:
    """Return the body's declared length, and whether it comes in HTTP chunks."""
    length = request.headers.get("content-length", "")
    return (
        numbers.natural(length, LONGEST_BODY) if numbers.DIGITS.fullmatch(length) else None,
        "chunked" in request.headers.get("transfer-encoding", ""),
    )


async def leave_clean(request: Request, raw: RawBody, response: Response) -> None:
    """Read a small rest of the body, or have the connection closed after the response.

    A client that waits for `100 Continue` sends no body after a refusal: bytes that follow would
    be taken for it.
    """
    if raw.finished:
        return
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if waits or not await raw.skip(MAX_SKIPPED_BYTES):
        response.headers["connection"] = "close"


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's start and stop."""
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return
