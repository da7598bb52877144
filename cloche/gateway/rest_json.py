"""The rest-json protocol: a path of its own for each operation, JSON bodies."""

from collections.abc import Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.json import message_key
from cloche.gateway.json_values import READERS, dump, load, mismatch, read, write
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol, status_of
from cloche.gateway.rest import MalformedPlace, places, read_places, write_places
from cloche.gateway.shapes import Action, Api


def parse(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a call; SerializationException when one is none of its type."""
    shape = action.input
    if shape is None:
        return {}
    try:
        found = read_places(shape, request, labels)
    except MalformedPlace as error:
        text = f"{error.text!r} at {error.field.wire!r}: {error}"
        raise AwsError("SerializationException", text) from error
    if shape.payload is not None:
        found |= parse_payload(action, request)
    elif fields := places(shape).body:
        value = load(request.body)
        if not isinstance(value, dict):
            raise mismatch(shape, value)
        for field in fields:
            item = value.get(field.wire)
            if item is not None:
                found[field.name] = READERS[field.shape.kind](field.shape, item)
    return found


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
    return {name: read(shape, load(request.body))} if request.body else {}


def serialize(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of a call."""
    shape, result = action.output, answer.result
    headers = {"content-type": "application/json", "x-amzn-requestid": answer.request_id}
    if shape is None:
        return Response(answer.status or action.status, {**headers, **answer.headers})
    if shape.payload is not None and shape.by_name[shape.payload].shape.kind in ("blob", "string"):
        headers["content-type"] = "application/octet-stream"
    stated = write_places(shape, result, headers, action.status)
    status = answer.status or stated
    headers.update(answer.headers)
    if shape.payload is not None:
        payload = shape.by_name[shape.payload].shape
        value = result.get(shape.payload)
        if payload.kind in ("blob", "string"):
            body = value.encode() if isinstance(value, str) else value
            return Response(status, headers, b"" if body is None else body)
        return Response(status, headers, b"" if value is None else dump(write(payload, value)))
    unknown = result.keys() - shape.by_name.keys()
    if unknown:
        raise KeyError(f"{shape.name} has no member {sorted(unknown)}")
    fields = places(shape).body
    if not fields:
        return Response(status, headers)
    written = {
        f.wire: write(f.shape, result[f.name]) for f in fields if result.get(f.name) is not None
    }
    return Response(status, headers, b"" if status == 204 else dump(written))


def refuse(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error as the REST services with JSON send it."""
    headers = {
        "content-type": "application/json",
        "x-amzn-requestid": request_id,
        "x-amzn-errortype": error.code,
    }
    body = {message_key(api, error.code): error.message, **error.fields}
    fault = api.fault(error.code)
    if fault is not None and "Type" in fault.members:
        body.setdefault("Type", "User" if error.status < 500 else "Service")
    return Response(status_of(api, error), headers | error.headers, dump(body))


PROTOCOL = Protocol(parse, serialize, refuse)
