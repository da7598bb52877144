"""The rest-xml protocol as S3 speaks it."""

from collections.abc import Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway import xml_schema
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol, status_of
from cloche.gateway.rest import MalformedPlace, places, read_places, write_places
from cloche.gateway.scalars import Malformed
from cloche.gateway.shapes import Action, Api, Shape
from cloche.gateway.xml_values import (
    DECLARATION,
    escaped,
    load,
    read,
    read_structure,
    write_members,
)

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MALFORMED_XML = (
    "The XML you provided was not well-formed or did not validate against our published schema"
)


def parse(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a call; MalformedXML or InvalidArgument when one is wrong."""
    shape = action.input
    if shape is None:
        return {}
    try:
        found = read_places(shape, request, labels)
    except MalformedPlace as error:
        raise invalid_argument(error) from error
    try:
        if shape.payload is not None:
            found |= parse_payload(action, request)
        elif request.body and places(shape).body:
            root = load(request.body)
            xml_schema.check_members(shape, root)
            found |= read_structure(shape, root)
    except Malformed as error:
        raise AwsError("MalformedXML", MALFORMED_XML) from error
    check_present(shape, found)
    return found


def check_present(shape: Shape, found: Mapping[str, Any]) -> None:
    """Raise for a parameter that the operation needs and the request has not."""
    for name in shape.required:
        if found.get(name) is not None:
            continue
        if name == shape.payload:
            raise AwsError("MissingRequestBodyError", "Request Body is empty")
        wire = shape.by_name[name].wire
        fields = {"ArgumentName": wire, "ArgumentValue": ""}
        raise AwsError("InvalidArgument", f"Missing required parameter: {wire}", fields=fields)


def parse_payload(action: Action, request: Request) -> dict[str, Any]:
    """Return the parameter that is the body."""
    assert action.input is not None and action.input.payload is not None
    name = action.input.payload
    shape = action.input.by_name[name].shape
    if action.streams:
        return {name: request.stream}
    if shape.kind == "blob":
        return {name: request.body}
    if shape.kind == "string":
        return {name: request.body.decode("utf-8", "replace")}
    if not request.body.strip():
        return {}
    root = load(request.body)
    xml_schema.check(shape, root, shape.wire or shape.name)
    return {name: read(shape, root)}


def invalid_argument(error: MalformedPlace) -> AwsError:
    """Return S3's refusal of a parameter."""
    kind, name = error.field.shape.kind, error.field.wire
    text = (
        f"Provided {name} not an integer or within integer range"
        if kind == "integer"
        else f"Invalid value for {name}"
    )
    fields = {"ArgumentName": name, "ArgumentValue": error.text}
    return AwsError("InvalidArgument", text, fields=fields)


def serialize(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of a call."""
    shape, result = action.output, answer.result
    headers = ids(answer.request_id)
    status = answer.status or action.status
    if shape is None:
        return Response(status, {**headers, **answer.headers})
    stated = write_places(shape, result, headers, status)
    status = answer.status or stated
    body: Any = b""
    if shape.payload is not None:
        value = result.get(shape.payload)
        payload = shape.by_name[shape.payload].shape
        if payload.kind in ("blob", "string"):
            body = value.encode() if isinstance(value, str) else (b"" if value is None else value)
            if payload.kind == "string" and body:  # a bucket's policy: no other payload is one
                headers.setdefault("content-type", "application/json")
        elif value is not None:
            body = document(payload, value, payload.wire or payload.name)
    elif shape.unwrapped:
        body = unwrapped(shape, result)
    elif places(shape).body and status not in (204, 304) and action.method != "HEAD":
        body = document(shape, result, shape.wire or shape.name)
    if not isinstance(body, bytes) or body:
        headers.setdefault("content-type", "application/xml")
    headers.update(answer.headers)
    return Response(status, headers, body)


def document(shape: Shape, value: Mapping[str, Any], name: str) -> bytes:
    """Return an XML document; S3 writes milliseconds always."""
    inner = write_members(shape, value, "milliseconds")
    return f'{DECLARATION}<{name} xmlns="{NAMESPACE}">{inner}</{name}>'.encode()


def unwrapped(shape: Shape, value: Mapping[str, Any]) -> bytes:
    """Return the document whose root is its only value."""
    (member,) = shape.fields
    text = escaped(value.get(member.name) or "")
    return f'{DECLARATION}<{member.wire} xmlns="{NAMESPACE}">{text}</{member.wire}>'.encode()


def refuse(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error as S3 sends it."""
    headers = ids(request_id) | {"content-type": "application/xml"}
    extra = "".join(f"<{k}>{escaped(str(v))}</{k}>" for k, v in error.fields.items())
    body = (
        f"{DECLARATION}<Error><Code>{error.code}</Code><Message>{escaped(error.message)}</Message>"
        f"{extra}<RequestId>{headers['x-amz-request-id']}</RequestId>"
        f"<HostId>{headers['x-amz-id-2']}</HostId></Error>"
    )
    status = status_of(api, error)
    return Response(status, headers | error.headers, b"" if status == 304 else body.encode())


def ids(request_id: str) -> dict[str, str]:
    """Return the headers in which S3 names a request."""
    digits = request_id.replace("-", "")
    return {"x-amz-request-id": digits[:16].upper(), "x-amz-id-2": digits * 2}


PROTOCOL = Protocol(parse, serialize, refuse)
