"""The json protocol: POST /, the operation in X-Amz-Target, JSON both ways."""

from collections.abc import Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.gateway.json_values import dump, load, read_structure, write_structure
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol, status_of
from cloche.gateway.shapes import Action, Api


def parse(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a call; SerializationException when the body is not the API's."""
    value = load(request.body)
    return read_structure(action.input, value) if action.input is not None else {}


def serialize(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of a call."""
    body = write_structure(action.output, answer.result) if action.output is not None else {}
    headers = {
        "content-type": content_type(api),
        "x-amzn-requestid": answer.request_id,
        **answer.headers,
    }
    return Response(answer.status or action.status, headers, dump(body))


def refuse(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error as the JSON services send it."""
    headers = {"content-type": content_type(api), "x-amzn-requestid": request_id}
    code, query = names_of(api, error)
    if query is not None:
        headers["x-amzn-query-error"] = query
    body = {"__type": code, message_key(api, error.code): error.message, **error.fields}
    return Response(status_of(api, error), headers | error.headers, dump(body))


def names_of(api: Api, error: AwsError) -> tuple[str, str | None]:
    """Return the error's type, and the code that clients of the former query API look for."""
    if "awsQueryCompatible" not in api.metadata:
        return error.code, None
    fault = api.fault(error.code)
    kind = "Sender" if error.status < 500 else "Receiver"
    name, code = (fault.name, fault.code) if fault else (error.code, error.code)
    return name, f"{code};{kind}"


def message_key(api: Api, code: str) -> str:
    """Return the name of the member that holds the text, as the model spells it."""
    fault = api.fault(code)
    return "Message" if fault is not None and "Message" in fault.members else "message"


def content_type(api: Api) -> str:
    """Return the protocol's content type."""
    return f"application/x-amz-json-{api.metadata.get('jsonVersion', '1.0')}"


PROTOCOL = Protocol(parse, serialize, refuse)
