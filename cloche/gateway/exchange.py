"""One request on its way: identify, parse, validate, authorize, handle, serialize."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import cloche.gateway.json as json_protocol
from cloche.core import executors
from cloche.core.authorization import Actor, Authorizer, Refused
from cloche.core.clock import Clock
from cloche.core.errors import AwsError
from cloche.core.identity import CredentialLookup
from cloche.core.ids import request_id as new_request_id
from cloche.gateway import cbor, forms, identify, post_form, query, rest_json, rest_xml, validate
from cloche.gateway.body import (
    Disconnected,
    PlainBody,
    RawBody,
    read_unproven,
    read_whole,
    unzip,
)
from cloche.gateway.chunked import ChunkedBody
from cloche.gateway.identify import Signer
from cloche.gateway.limits import (
    BODY_BYTES,
    FORM_BYTES,
    HASHED_BYTES,
    LONG_BYTES,
    UNSIGNED_BYTES,
    XML_BYTES,
)
from cloche.gateway.message import Request, Response
from cloche.gateway.passing import READS, Passing
from cloche.gateway.protocol import Answer, Protocol
from cloche.gateway.refusals import S3, Family, family_of, validation_code
from cloche.gateway.request_keys import request_keys
from cloche.gateway.routing import CBOR, CBOR_PATH, Directory, Meaning, elsewhere
from cloche.gateway.shapes import Action, Api
from cloche.gateway.signature import read_claim, service_claimed
from cloche.operation import Body, Call, Http, Operation, Reply, Service
from cloche.records import objects
from cloche.records.store import Store

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("cloche.gateway")
FORM = "application/x-www-form-urlencoded"

PROTOCOLS: Mapping[str, Protocol] = {
    "json": json_protocol.PROTOCOL,
    "query": query.QUERY,
    "ec2": query.EC2,
    "rest-json": rest_json.PROTOCOL,
    "rest-xml": rest_xml.PROTOCOL,
    CBOR: cbor.PROTOCOL,
}
# Where all requests go, of the protocols that name the operation elsewhere.
ONE_PLACE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "json": (("POST", "/"),),
    "query": (("POST", "/"), ("GET", "/")),
    "ec2": (("POST", "/"), ("GET", "/")),
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
class Parts:
    """What every request is answered with."""

    services: Mapping[str, Service]
    apis: Mapping[str, Api]
    directory: Directory
    credentials: CredentialLookup
    store: Store
    clock: Clock
    authorizer: Authorizer
    passing: Passing | None = None  # what goes on to the real S3


@dataclass(frozen=True, slots=True)
class Target:
    """The service that a request is for, and how it speaks."""

    meaning: Meaning
    service: Service
    api: Api
    protocol: Protocol
    family: Family


@dataclass(slots=True)
class Exchange:
    """One request on its way through the gateway."""

    parts: Parts
    request: Request
    raw: RawBody
    gang: str | None

    async def answer(self) -> Response:
        """Return the response: the handler's, or a refusal in the protocol's own form."""
        request_id = new_request_id()
        try:
            if self.names_nobody():
                body = await read_whole(self.raw, UNSIGNED_BYTES, "RequestEntityTooLarge")
                self.request.body = body
            target = self.target()
        except AwsError as error:
            return self.stranger().refuse(NO_API, error, request_id)
        try:
            check_uri(self.request)
            return await self.call(target, request_id)
        except AwsError as error:
            return target.protocol.refuse(target.api, worded(error, target), request_id)
        except Disconnected:
            raise
        except Exception:
            what = f"{self.request.method} {self.request.path}"
            logger.exception("%s (request %s)", what, request_id)
            internal = AwsError(target.family.internal, target.family.internal_text, 500)
            return target.protocol.refuse(target.api, internal, request_id)

    def names_nobody(self) -> bool:
        """Return whether only the form in the body can tell the service.

        urllib and curl say of any body that it is a form: a signature tells more, wherever it is,
        and so does a method or path that no form is sent with.
        """
        request = self.request
        if not request.headers.get("content-type", "").startswith(FORM):
            return False
        if (request.method, request.path) not in ONE_PLACE["query"]:
            return False
        return "x-amz-target" not in request.headers and service_claimed(request) is None

    def stranger(self) -> Protocol:
        """Return the protocol in which to refuse a service that we have not."""
        headers = self.request.headers
        if "x-amz-target" in headers:
            return PROTOCOLS["json"]
        return PROTOCOLS[
            "query" if headers.get("content-type", "").startswith(FORM) else "rest-json"
        ]

    def target(self) -> Target:
        """Return the service that the request is for; AwsError when we have it not."""
        meaning = self.parts.directory.meaning(self.request)
        if isinstance(meaning, str):
            text = f"Cloche does not support the service {meaning}."
            raise AwsError("UnknownOperationException", text)
        return Target(
            meaning,
            self.parts.services[meaning.service],
            self.parts.apis[meaning.service],
            PROTOCOLS[meaning.protocol],
            family_of(meaning.protocol),
        )

    async def call(self, target: Target, request_id: str) -> Response:
        """Return the handler's response; AwsError for every refusal."""
        now, s3 = self.parts.clock.now(), target.family is S3
        if s3 and post_form.is_form(self.request, target.meaning.path):
            return await self.upload(target, request_id)
        try:
            signer = identify.find_signer(self.request, target.family, self.parts.credentials, now)
        except AwsError as error:
            nobody = self.nobody(target, error)
            if nobody is None:
                return await self.passed_on(target, error)
            signer = nobody
        name, labels, body = await (self.read_s3 if s3 else self.read)(target, signer)
        try:
            return await self.perform(target, signer, request_id, name, labels, body)
        except AwsError as error:
            return await self.read_elsewhere(target, name, error)

    def nobody(self, target: Target, error: AwsError) -> Signer | None:
        """Return who asks of a bucket that is here when nobody signed; None: another request."""
        if target.family is not S3 or not isinstance(error, identify.NobodySigned):
            return None
        name = unquote(target.meaning.path[1:].partition("/")[0])
        bucket = objects.find_bucket(self.parts.store.read(), name)
        if bucket is None:
            return None
        return identify.anonymous(self.parts.clock.now(), bucket.region)

    async def passed_on(self, target: Target, error: AwsError) -> Response:
        """Return the real S3's answer to a request by nobody who is known here; else `error`."""
        passing, request, path = self.parts.passing, self.request, target.meaning.path
        if passing is None or target.family is not S3:
            raise error
        try:
            claim = read_claim(request, S3)
        except AwsError:
            raise error from None
        made = None
        if claim is None:
            made = await passing.unsigned(request, path, self.raw, self.gang)
        elif self.parts.credentials.find(claim.access_key_id) is None:
            made = await passing.foreign(request, path, self.raw, self.gang, claim)
        if made is None:
            raise error
        return made

    async def read_elsewhere(self, target: Target, name: str, error: AwsError) -> Response:
        """Return the real S3's answer to a read of a public bucket; else `error`."""
        passing, path = self.parts.passing, target.meaning.path
        missing = target.family is S3 and error.code == "NoSuchBucket" and name in READS
        made = None
        if missing and passing is not None:
            made = await passing.signed(self.request, path, self.raw, self.gang)
        if made is None:
            raise passing.explained(name, error) if passing is not None else error
        return made

    async def upload(self, target: Target, request_id: str) -> Response:
        """Return the answer to a form that uploads: the PutObject that its policy allows."""
        request, name = self.request, "PutObject"
        form = await post_form.read(request, self.raw, target.meaning.path)
        signer, bounds = post_form.prove(form, self.parts.credentials, self.parts.clock.now())
        action = target.api.action(name)
        assert action is not None
        body = post_form.File(form.reader, bounds)
        self.request = post_form.as_put(form, request, action, body)
        labels = {"Bucket": form.bucket, "Key": form.key}
        made = await self.perform(target, signer, request_id, name, labels, body)
        return post_form.answer(form, request, made)

    async def perform(
        self,
        target: Target,
        signer: Signer,
        request_id: str,
        name: str,
        labels: Mapping[str, str],
        body: Body,
    ) -> Response:
        """Return the response of an operation that its caller has proven to have asked for."""
        s3 = target.family is S3
        action, operation = target.api.action(name), target.service.operations.get(name)
        if action is None or operation is None:
            raise unsupported_action(name, target)
        length = len(self.request.body) if action.parses_body else 0
        parameters = await apart(length, target.protocol.parse, action, self.request, labels)
        check_supported(action, operation, parameters)
        if action.input is not None and not s3:
            code = validation_code(target.api, target.meaning.protocol)
            await apart(length, validate.check, action.input, parameters, code)
        call = self.describe(target, signer, request_id, name, body)
        operation.authorize(call, parameters)

        def respond(result: Any) -> Response:
            if not isinstance(result, Reply):
                result = Reply(result or {})
            answer = Answer(result.result, result.status, result.headers, request_id)
            return target.protocol.serialize(target.api, action, answer)

        if operation.on is not None:
            return await operation.on.run(lambda: respond(operation.handler(call, **parameters)))
        result = operation.handler(call, **parameters)
        if inspect.isawaitable(result):
            result = await result
        return respond(result)

    def describe(
        self, target: Target, signer: Signer, request_id: str, name: str, body: Body
    ) -> Call[Any]:
        """Return the call for the handler."""
        request, principal, now = self.request, signer.credential.principal, self.parts.clock.now()
        keys = partial(request_keys, name, request, signer, target.family, now)
        return Call(
            operation=name,
            account=principal.account,
            region=signer.claim.region,
            actor=Actor(principal, self.parts.authorizer, lambda: now, keys),
            now=now,
            request_id=request_id,
            service=target.service.api,
            store=self.parts.store,
            http=Http(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=body,
                scheme=request.scheme,
            ),
            gang=self.gang,
        )

    async def read(self, target: Target, signer: Signer) -> tuple[str, Mapping[str, str], Body]:
        """Read the body, then prove the signature, which covers it; return operation and labels."""
        family = target.family
        most = FORM_BYTES if target.meaning.protocol in ("query", "ec2") else BODY_BYTES
        body = self.request.body
        if not self.raw.finished:
            body = await read_unproven(self.raw, most, family.too_large)
        self.request.body = body
        length = 0 if len(body) <= HASHED_BYTES else len(body)
        payload = await apart(length, identify.payload_hash, self.request, signer)
        identify.prove(self.request, target.meaning.path, signer, payload, family)
        if self.request.headers.get("content-encoding", "").lower() == "gzip":
            body = await executors.MESSAGES.run(unzip, body, most, family.too_large)
            self.request.body = body
        name, labels = self.find_action(target)
        return name, labels, PlainBody(self.raw, None)

    async def read_s3(self, target: Target, signer: Signer) -> tuple[str, Mapping[str, str], Body]:
        """Prove the signature before any of the body is read; stream it where it may be long."""
        payload = identify.s3_payload(self.request, signer)
        identify.prove(self.request, target.meaning.path, signer, payload, target.family)
        name, labels = self.find_action(target)
        action = target.api.action(name)
        if action is not None:
            router = self.parts.directory.routers[target.meaning.service]
            forms.check_form(router, action, self.request, target.meaning.path)
        if action is None or name not in target.service.operations:
            raise unsupported_action(name, target)
        body: Body
        if payload.startswith("STREAMING-"):
            body = ChunkedBody(self.raw, self.request, payload, signer)
        else:
            body = PlainBody(self.raw, payload if identify.HEX.fullmatch(payload) else None)
        if action.streams:
            self.request.stream = body
        else:
            whole = await read_whole(body, XML_BYTES, target.family.too_large)
            self.request.body = whole
            forms.check_copy(self.request)
        return name, labels, body

    def find_action(self, target: Target) -> tuple[str, Mapping[str, str]]:
        """Return the operation's name and the labels of its path."""
        request, protocol = self.request, target.meaning.protocol
        if protocol in ONE_PLACE and (request.method, request.path) not in ONE_PLACE[protocol]:
            raise unsupported_action(f"{request.method} {request.path}", target)
        if protocol == "json":
            return request.headers.get("x-amz-target", "").rpartition(".")[2], {}
        if protocol == CBOR:
            named = CBOR_PATH.match(request.path)
            assert named is not None
            return named["operation"], {}
        if protocol in ("query", "ec2"):
            names = {value for key, value in query.form_of(request) if key == "Action"}
            if not names:
                raise AwsError("MissingAction", "Missing Action")
            if len(names) > 1:
                raise AwsError("MalformedInput", "Action is given more than once")
            return names.pop(), {}
        router, path = self.parts.directory.routers[target.meaning.service], target.meaning.path
        found, labels = router.find(request.method, path, dict(request.query), request.headers)
        if not found and target.family is S3:
            raise forms.unknown(router, request, path)
        if not found:
            other = elsewhere(target.api.signing_name, request)
            if other is not None:
                raise unsupported_action(other[1], target, other[0])
            raise unsupported_action(f"{request.method} {request.path}", target)
        supported = (name for name in found if name in target.service.operations)
        return next(supported, found[0]), labels


async def apart(length: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what work returns, done on a thread where a body is so long that others would wait."""
    if length <= LONG_BYTES:
        return work(*args, **kwargs)
    return await executors.MESSAGES.run(work, *args, **kwargs)


def check_uri(request: Request) -> None:
    """Raise when path or query are not percent-encoded UTF-8."""
    try:
        for text in (request.path, request.query_string):
            if not text.isascii():
                raise ValueError(text)
            if "%" in text:
                unquote_to_bytes(text).decode()
    except ValueError as error:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from error


def worded(error: AwsError, target: Target) -> AwsError:
    """Return an error as the service words it: its own code for parameters, S3's resource."""
    if isinstance(error, Refused):
        error = target.family.refuse_denied(error)
    code, status, fields = error.code, error.status, error.fields
    if code == "ValidationException":
        code = validation_code(target.api, target.meaning.protocol)
    if target.family is S3:
        fields = {**fields, "Resource": fields.get("Resource", unquote(target.meaning.path))}
        status = 501 if code == S3.validation else status
    return AwsError(code, error.message, status, fields=fields, headers=error.headers)


def unsupported_action(name: str, target: Target, service: str | None = None) -> AwsError:
    """Return the refusal of an operation, by name; botocore retries neither 400 nor 501.

    `service` is the operation's where it is not the target's.
    """
    text = f"Cloche does not support the operation {name} of {service or target.api.name}."
    return AwsError(target.family.unknown_action, text, 501 if target.family is S3 else 400)


def check_supported(action: Action, operation: Operation, parameters: Mapping[str, Any]) -> None:
    """Raise when the request has a parameter that the handler does not take."""
    unknown = parameters.keys() - operation.parameters
    if unknown:
        names = ", ".join(sorted(unknown))
        noun = "parameter" if len(unknown) == 1 else "parameters"
        text = f"Cloche does not support the {noun} {names} of {action.name}."
        raise AwsError("ValidationException", text)
