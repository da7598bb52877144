"""The platform's own paths (`/_cloche/…`): who may ask for them, and what answers.

`health` says to anybody that the server is up, and which of its loops can't go on. What is left is
for the owner, who knows the token in `credentials.json`, for who signs with a key of the account,
or for a gang at its own door.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from cloche.core.clock import Clock
from cloche.core.config import Config
from cloche.core.errors import AwsError
from cloche.core.identity import CredentialLookup, Principal
from cloche.gateway import identify
from cloche.gateway.body import Disconnected, RawBody, read_whole
from cloche.gateway.browser import check_place
from cloche.gateway.message import Request, Response
from cloche.gateway.refusals import REST_JSON

logger = logging.getLogger("cloche.gateway")

VERSION = version("cloche")
HEALTH_PATH = "/_cloche/health"
MOST_BODY_BYTES = 64 * 1024
# anyone: no proof; gang: a gang at its door, without one; known: the owner, or a signature by a
# key of the account; owner: the owner, or root's signature.
Access = Literal["anyone", "gang", "known", "owner"]


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """A request for one of the platform's own paths. `principal` signed it; None: the owner sent
    the token, or nobody was asked to.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    gang: str | None
    principal: Principal | None = None


LocalHandler = Callable[[LocalRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """What answers a path, whom, and which method (None: any)."""

    handler: LocalHandler
    access: Access
    method: str | None


class OwnPaths:
    """Answers requests for the platform's own paths. `token` is the owner's, once there is one."""

    def __init__(self, config: Config, credentials: CredentialLookup, clock: Clock) -> None:
        self.credentials, self.clock, self.account = credentials, clock, config.account
        self.names = frozenset((config.host.lower(), *config.host_names))
        self.token: str | None = None
        self.routes: dict[str, OwnRoute] = {}
        self.failures: Callable[[], Mapping[str, str]] = dict  # of loops that can't go on
        self.add(HEALTH_PATH, self.health, access="anyone")

    def add(
        self, path: str, handler: LocalHandler, *, access: Access, method: str | None = None
    ) -> None:
        """Have a path answered."""
        self.routes[path] = OwnRoute(handler, access, method)

    async def health(self, _request: LocalRequest) -> Response:
        """Answer that the platform serves; if so, that loops can't go on and which, not why."""
        if failing := sorted(self.failures()):
            told = {"status": "failing", "version": VERSION, "failing_loops": failing}
            return local_json(200, told)
        return local_json(200, {"status": "ok", "version": VERSION})

    async def answer(self, request: Request, raw: RawBody, gang: str | None) -> Response:
        """Return the answer; whatever goes wrong is one too."""
        try:
            check_place(request, self.names)
            route = self.routes.get(request.path)
            principal = await self.caller(request, raw, gang, route)
            if route is None:
                raise AwsError("NotFound", f"There is nothing at {request.path}", 404)
            if route.method not in (None, request.method):
                text = f"{request.path} takes {route.method}"
                raise AwsError("MethodNotAllowed", text, 405)
            query = dict(request.query)
            return await route.handler(
                LocalRequest(request.method, request.path, query, request.headers, gang, principal)
            )
        except AwsError as error:
            return local_json(error.status, {"code": error.code, "message": error.message})
        except Disconnected:
            raise
        except Exception:
            logger.exception("%s %s", request.method, request.path)
            return local_json(500, {"message": "An unexpected error; the server's log has it."})

    async def caller(
        self, request: Request, raw: RawBody, gang: str | None, route: OwnRoute | None
    ) -> Principal | None:
        """Return who signed, if one did; AccessDenied when the path is not for who asks.

        Without a proof nobody learns which paths there are.
        """
        access = "known" if route is None else route.access
        if access == "anyone" or (access == "gang" and gang is not None):
            return None
        if gang is not None:
            raise AwsError("AccessDenied", f"{request.path} is not for jobs and replicas", 403)
        if self.is_owner(request):
            return None
        signer = await self.signer(request, raw)
        if access == "owner" and signer.kind != "root":
            text = f"{request.path} is for the root user, and the token in credentials.json"
            raise AwsError("AccessDenied", text, 403)
        return signer

    def is_owner(self, request: Request) -> bool:
        """Return whether the owner's token was sent; AccessDenied when a wrong one was."""
        said = request.headers.get("authorization", "")
        if not said.startswith("Bearer "):
            return False
        expected = f"Bearer {self.token}"
        if self.token is None or not hmac.compare_digest(said.encode(), expected.encode()):
            raise AwsError("AccessDenied", "The token is not the one in credentials.json", 403)
        return True

    async def signer(self, request: Request, raw: RawBody) -> Principal:
        """Return who signed the request, by its headers; AwsError when nobody did."""
        now = self.clock.now()
        if "authorization" not in request.headers:
            text = f"{request.path} takes a signature, or the token in credentials.json"
            raise AwsError("AccessDenied", text, 403)
        signer = identify.find_signer(request, REST_JSON, self.credentials, now)
        request.body = await read_whole(raw, MOST_BODY_BYTES, "RequestEntityTooLarge")
        payload = identify.payload_hash(request, signer)
        identify.prove(request, request.path, signer, payload, REST_JSON)
        principal = signer.credential.principal
        if principal.account != self.account:
            raise AwsError("AccessDenied", f"{request.path} is another account's", 403)
        return principal


def local_json(status: int, value: Mapping[str, object]) -> Response:
    """Return a JSON response of the platform's own, which nobody keeps."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(status, headers, json.dumps(value).encode())
