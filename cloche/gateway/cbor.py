"""Smithy's RPC v2 with CBOR bodies: the operation in the path, CBOR both ways.

CloudWatch's model names it first; botocore up to 1.44 chooses json where both are offered.
https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
"""

from collections.abc import Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.cbor_values import dump, load, read, write, wrong_type
from cloche.gateway.json import message_key, names_of
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol, status_of
from cloche.gateway.shapes import Action, Api


def parse(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a call; SerializationException when the body is not the API's."""
    if action.input is None or not request.body:
        return {}
    value = read(action.input, load(request.body))
    if not isinstance(value, dict):
        raise wrong_type(action.input)
    return value


def serialize(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of a call."""
    body = dump(write(action.output, answer.result)) if action.output is not None else b""
    return Response(
        answer.status or action.status, {**heading(answer.request_id), **answer.headers}, body
    )


def refuse(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error; those of the former query API keep their codes beside."""
    code, query = names_of(api, error)
    headers = heading(request_id) | error.headers
    if query is not None:
        headers["x-amzn-query-error"] = query
    body = {"__type": code, message_key(api, error.code): error.message, **error.fields}
    return Response(status_of(api, error), headers, dump(body))


def heading(request_id: str) -> dict[str, str]:
    """Return the headers that every response has."""
    return {
        "content-type": "application/cbor",
        "smithy-protocol": "rpc-v2-cbor",
        "x-amzn-requestid": request_id,
    }


PROTOCOL = Protocol(parse, serialize, refuse)
