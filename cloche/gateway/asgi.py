"""The gateway: an ASGI application that turns HTTP into calls and answers into HTTP.

identify (whose signature) -> parse -> authorize -> validate -> handle -> serialize.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

import cloche.gateway.json as json_protocol
from cloche.core.clock import Clock
from cloche.core.config import Config
from cloche.core.errors import AwsError
from cloche.core.identity import Credentials
from cloche.core.ids import request_id as new_request_id
from cloche.gateway import identify, query, rest_json, rest_xml
from cloche.gateway.body import Disconnected, PlainBody, RawBody, Receive
from cloche.gateway.families import Family, family_of, validation_code
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol
from cloche.gateway.routing import Directory, Meaning
from cloche.gateway.send import Send, send_response
from cloche.gateway.shapes import Action, Api, api
from cloche.operation import Body, Call, Http, Operation, Reply, Service
from cloche.records.store import Store

logger = logging.getLogger("cloche.gateway")
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Authorize = Callable[[Call[Any], Operation, Mapping[str, Any]], None]

VERSION = "0.1.0"
MAX_BODY_BYTES = 64 * 1024 * 1024  # of what no operation streams
MAX_SKIPPED_BYTES = 8 * 1024 * 1024  # read and dropped, so that a refusal leaves the connection

PROTOCOLS: Mapping[str, Protocol] = {
    "json": json_protocol.PROTOCOL,
    "query": query.QUERY,
    "ec2": query.EC2,
    "rest-json": rest_json.PROTOCOL,
    "rest-xml": rest_xml.PROTOCOL,
}
# Stands for a service that we have not, so that its refusal has a form.
NO_API = Api(
    "unknown",
    {
        "metadata": {"protocol": "json", "endpointPrefix": "", "apiVersion": ""},
        "operations": {},
        "shapes": {},
    },
)


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """A request for one of the platform's own paths (`/_cloche/…`)."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    gang: str | None


LocalHandler = Callable[[LocalRequest], Awaitable[Response]]


def anyone_known(call: Call[Any], operation: Operation, parameters: Mapping[str, Any]) -> None:
    """Let every credential that the platform issued do anything in its account."""


class Gateway:
    """Serves AWS's APIs for `services` (by botocore's names) to whoever `credentials` knows.

    `local` maps further `/_cloche/…` paths to their handlers.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        credentials: Credentials,
        *,
        store: Store,
        clock: Clock,
        config: Config,
        authorize: Authorize = anyone_known,
    ) -> None:
        self.services = services
        self.credentials = credentials
        self.store, self.clock, self.config = store, clock, config
        self.authorize = authorize
        self.apis = {name: api(name) for name in services}
        self.directory = Directory(self.apis)
        self.local: dict[str, LocalHandler] = {"/_cloche/health": self.health}

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
        if scope["type"] != "http":
            raise ValueError(f"no such thing as {scope['type']} here")
        request = read_head(scope)
        raw = RawBody(receive, *declared_length(request))
        try:
            if request.path.startswith("/_cloche/"):
                response = await self.answer_local(request, gang)
            else:
                response = await Exchange(self, request, raw, gang).answer()
            await leave_clean(request, raw, response)
            await send_response(send, response, request.method)
        except Disconnected:
            logger.debug("%s %s: the client went away", request.method, request.path)

    async def answer_local(self, request: Request, gang: str | None) -> Response:
        """Answer a request for one of the platform's own paths."""
        handler = self.local.get(request.path)
        if handler is None:
            return local_json(404, {"message": f"There is nothing at {request.path}"})
        local = LocalRequest(
            request.method, request.path, dict(request.query), request.headers, gang
        )
        try:
            return await handler(local)
        except AwsError as error:
            return local_json(error.status, {"code": error.code, "message": error.message})
        except Exception:
            logger.exception("%s %s", request.method, request.path)
            return local_json(500, {"message": "An unexpected error; the server's log has it."})

    async def health(self, request: LocalRequest) -> Response:
        """Answer that the platform serves."""
        return local_json(
            200,
            {
                "status": "ok",
                "version": VERSION,
                "account": self.config.account,
                "region": self.config.region,
                "services": sorted(self.services),
            },
        )


def local_json(status: int, value: Mapping[str, object]) -> Response:
    """Return a JSON response of the platform's own."""
    return Response(status, {"content-type": "application/json"}, json.dumps(value).encode())


def read_head(scope: Scope) -> Request:
    """Return the request without its body."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    query_string = scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query_string, keep_blank_values=True, errors="surrogateescape")
    return Request(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1").partition("?")[0] or "/",
        query_string=query_string,
        query=tuple(pairs),
        headers=headers,
    )


def declared_length(request: Request) -> tuple[int | None, bool]:
    """Return the body's declared length, and whether it comes in HTTP chunks."""
    length = request.headers.get("content-length", "")
    return (
        int(length) if length.isdecimal() else None,
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


@dataclass(slots=True)
class Exchange:
    """One request on its way through the gateway."""

    gateway: Gateway
    request: Request
    raw: RawBody
    gang: str | None

    async def answer(self) -> Response:
        """Return the response: the handler's, or a refusal in the protocol's own form."""
        request_id = new_request_id()
        if self.names_nobody():
            self.request = replace(
                self.request, body=await self.raw.whole(MAX_BODY_BYTES, "RequestTooLarge")
            )
        meaning = self.gateway.directory.meaning(self.request)
        if isinstance(meaning, str):
            text = f"Cloche does not support the service {meaning}."
            return self.stranger().refuse(
                NO_API, AwsError("UnknownOperationException", text), request_id
            )
        model = self.gateway.apis[meaning.service]
        protocol = PROTOCOLS[meaning.protocol]
        family = family_of(meaning.protocol)
        try:
            return await self.call(meaning, model, protocol, family, request_id)
        except AwsError as error:
            if error.code == "ValidationException":
                error.code = validation_code(model, meaning.protocol)
            return protocol.refuse(model, error, request_id)
        except Disconnected:
            raise
        except Exception:
            logger.exception(
                "%s %s (request %s)", self.request.method, self.request.path, request_id
            )
            internal = AwsError(family.internal, family.internal_text, 500)
            return protocol.refuse(model, internal, request_id)

    def names_nobody(self) -> bool:
        """Return whether only the form in the body can tell the service."""
        headers = self.request.headers
        return (
            "authorization" not in headers
            and "x-amz-target" not in headers
            and headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        )

    def stranger(self) -> Protocol:
        """Return the protocol in which to refuse a service that we have not."""
        if "x-amz-target" in self.request.headers:
            return PROTOCOLS["json"]
        form = self.request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        )
        return PROTOCOLS["query" if form else "rest-json"]

    async def call(
        self, meaning: Meaning, model: Api, protocol: Protocol, family: Family, request_id: str
    ) -> Response:
        """Return the handler's response; AwsError for every refusal."""
        gateway = self.gateway
        now = gateway.clock.now()
        signer = identify.find_signer(self.request, family, gateway.credentials, now)
        service = gateway.services[meaning.service]
        action, labels, stream = await self.read(meaning, model, service, family, signer)
        operation = service.operations.get(action.name)
        if operation is None:
            raise unsupported_action(action.name, meaning.service, family)
        request = self.request
        body: Body = stream or PlainBody(self.raw, None)
        parameters = protocol.parse(action, request, labels)
        call = Call(
            operation=action.name,
            account=signer.credential.principal.account,
            region=signer.claim.region,
            principal=signer.credential.principal,
            now=now,
            request_id=request_id,
            service=service.api,
            store=gateway.store,
            http=Http(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=body,
            ),
            gang=self.gang,
        )
        gateway.authorize(call, operation, parameters)
        check_parameters(action, operation, parameters)
        result = operation.handler(call, **parameters)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, Reply):
            answer = Answer(result.result, result.status, result.headers, request_id)
        else:
            answer = Answer(result or {}, None, {}, request_id)
        return protocol.serialize(model, action, answer)

    async def read(
        self,
        meaning: Meaning,
        model: Api,
        service: Service,
        family: Family,
        signer: identify.Signer,
    ) -> tuple[Action, Mapping[str, str], Body | None]:
        """Prove the signature and read the body; return operation, labels and a streamed body."""
        if meaning.protocol == "rest-xml":
            return await self.read_s3(meaning, model, service, family, signer)
        body = await self.raw.whole(MAX_BODY_BYTES, family.too_large)
        self.request = request = replace(self.request, body=self.request.body or body)
        unsigned = signer.claim.kind == "presigned"
        payload = identify.payload_hash(request, signer, unsigned)
        identify.prove(request, meaning.path, signer, payload, family)
        name, labels = self.find_action(meaning, model, service, family)
        return action_of(model, name, meaning, family), labels, None

    async def read_s3(
        self,
        meaning: Meaning,
        model: Api,
        service: Service,
        family: Family,
        signer: identify.Signer,
    ) -> tuple[Action, Mapping[str, str], Body | None]:
        """Prove the signature before any of the body is read; stream it where it may be long."""
        payload = identify.s3_payload(self.request, signer)
        identify.prove(self.request, meaning.path, signer, payload, family)
        name, labels = self.find_action(meaning, model, service, family)
        action = action_of(model, name, meaning, family)
        body = PlainBody(self.raw, payload if identify.HEX.fullmatch(payload) else None)
        if action.streams:
            self.request = replace(self.request, stream=body)
            return action, labels, body
        whole = await self.raw.whole(MAX_BODY_BYTES, family.too_large)
        self.request = replace(self.request, body=whole)
        identify.check_s3_body(self.request, payload)
        return action, labels, None

    def find_action(
        self, meaning: Meaning, model: Api, service: Service, family: Family
    ) -> tuple[str, Mapping[str, str]]:
        """Return the operation's name and the labels of its path."""
        request = self.request
        if meaning.protocol == "json":
            return request.headers["x-amz-target"].rpartition(".")[2], {}
        if meaning.protocol in ("query", "ec2"):
            name = dict(query.form_of(request)).get("Action")
            if name is None:
                raise AwsError("MissingAction", "Missing Action", 400)
            return name, {}
        found, labels = self.gateway.directory.routers[meaning.service].find(
            request.method, meaning.path, dict(request.query), request.headers
        )
        if not found:
            what = f"{request.method} {request.path}"
            raise unsupported_action(what, meaning.service, family)
        return next((name for name in found if name in service.operations), found[0]), labels


def action_of(model: Api, name: str, meaning: Meaning, family: Family) -> Action:
    """Return the operation's model; AwsError when the API has none of that name."""
    action = model.action(name)
    if action is None:
        raise unsupported_action(name, meaning.service, family)
    return action


def unsupported_action(name: str, service: str, family: Family) -> AwsError:
    """Return the refusal of an operation, by name."""
    text = f"Cloche does not support the operation {name} of {service}."
    return AwsError(family.unknown_action, text, 501 if family.unknown_action[0] == "N" else 400)


def check_parameters(action: Action, operation: Operation, parameters: Mapping[str, Any]) -> None:
    """Raise when the request has a parameter that the handler does not take."""
    unknown = parameters.keys() - operation.parameters
    if unknown:
        names = ", ".join(sorted(unknown))
        noun = "parameter" if len(unknown) == 1 else "parameters"
        text = f"Cloche does not support the {noun} {names} of {action.name}."
        raise AwsError("ValidationException", text)
