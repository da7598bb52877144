"""The query protocol and its ec2 variant: a form with dotted names in, XML out."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from cloche.core.errors import AwsError
from cloche.gateway.limits import (
    FORM_FIELDS,
    FORM_NAME_PARTS,
    FORM_NODES,
    SHOWN_CHARACTERS,
)
from cloche.gateway.message import Request, Response
from cloche.gateway.protocol import Answer, Protocol, status_of
from cloche.gateway.scalars import Malformed, read_text
from cloche.gateway.shapes import Action, Api, Field, Shape
from cloche.gateway.xml_values import DECLARATION, escaped, write_members

Tree = dict[str | None, Any]  # names to subtrees; a node's own text under None
LONGEST_NUMBER = 9  # digits of a place in a list


def form_of(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the form of a query call: its body's and its URL's; MalformedQueryString if none."""
    if request.form is None:
        try:
            text = request.body.decode()
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_FIELDS)
        except ValueError as error:
            raise malformed() from error
        request.form = tuple(pairs)
    return request.form + request.query


def malformed() -> AwsError:
    """Return the refusal of a form that is none, or is beyond its bounds."""
    return AwsError("MalformedQueryString", "The query string is malformed.", 404)


def tree(pairs: Iterable[tuple[str, str]]) -> Tree:
    """Return `A.B.1=x` pairs as nested dictionaries."""
    root: Tree = {}
    nodes = 0
    for name, value in pairs:
        node = root
        parts = name.split(".", FORM_NAME_PARTS)
        nodes += len(parts)
        if len(parts) > FORM_NAME_PARTS or nodes > FORM_NODES:
            raise malformed()
        for part in parts:
            node = node.setdefault(part, {})
        node[None] = value
    return root


def parse_query(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a query call."""
    if action.input is None:
        return {}
    return read_structure(action.input, tree(form_of(request)), "", ec2=False)


def parse_ec2(action: Action, request: Request, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of an ec2 call: lists are never wrapped, names are capitalized."""
    if action.input is None:
        return {}
    return read_structure(action.input, tree(form_of(request)), "", ec2=True)


def read(shape: Shape, node: Tree, path: str, ec2: bool) -> Any:
    """Return the value at a node."""
    if shape.kind == "structure":
        return read_structure(shape, node, path, ec2)
    if shape.kind == "list":
        return read_list(shape, node, path, ec2)
    if shape.kind == "map":
        return read_map(shape, node, path, ec2)
    try:
        return read_text(shape, node.get(None, ""))
    except Malformed as error:
        value = node.get(None, "")[:SHOWN_CHARACTERS]
        text = f"Value ({value}) at {path} is malformed: {error}"
        raise AwsError("MalformedInput", text) from error


def read_structure(shape: Shape, node: Tree, path: str, ec2: bool) -> dict[str, Any]:
    """Return a structure's members by the API's names."""
    found: dict[str, Any] = {}
    for field in shape.fields:
        name = ec2_name(field) if ec2 else query_name(field)
        if name in node:
            below = f"{path}.{name}" if path else name
            found[field.name] = read(field.shape, node[name], below, ec2)
    return found


def query_name(field: Field) -> str:
    """Return a member's name in a query; a flattened list is named after its items."""
    if field.shape.kind == "list" and field.shape.flattened and field.shape.item is not None:
        return field.shape.item.wire or field.wire
    return field.wire


def ec2_name(field: Field) -> str:
    """Return a member's name in an ec2 query."""
    name: str = field.shape.traits.get("queryName") or field.wire[0].upper() + field.wire[1:]
    return name


def read_list(shape: Shape, node: Tree, path: str, ec2: bool) -> list[Any]:
    """Return a list in the order of its numbers."""
    assert shape.item is not None
    if not ec2 and not shape.flattened:
        name = shape.item.wire or "member"
        node, path = node.get(name, {}), f"{path}.{name}"
    return [read(shape.item, node[i], f"{path}.{i}", ec2) for i in numbers(node)]


def read_map(shape: Shape, node: Tree, path: str, ec2: bool) -> dict[str, Any]:
    """Return a map."""
    assert shape.item is not None and shape.key is not None
    if not shape.flattened:
        node, path = node.get("entry", {}), f"{path}.entry"
    key, value = shape.key.wire or "key", shape.item.wire or "value"
    return {
        node[i].get(key, {}).get(None, ""): read(
            shape.item, node[i].get(value, {}), f"{path}.{i}.{value}", ec2
        )
        for i in numbers(node)
    }


def numbers(node: Tree) -> list[str]:
    """Return the names of a node that are numbers, in their order."""
    names = [name for name in node if name is not None and len(name) <= LONGEST_NUMBER]
    return sorted((name for name in names if name.isdecimal()), key=int)


# ---------------------------------------------------------------------- responses


def serialize_query(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of a query call."""
    inner = write_members(action.output, answer.result) if action.output is not None else ""
    if action.result_wrapper is not None:
        inner = f"<{action.result_wrapper}>{inner}</{action.result_wrapper}>"
    meta = f"<ResponseMetadata><RequestId>{answer.request_id}</RequestId></ResponseMetadata>"
    return envelope(api, action, answer, inner + meta)


def serialize_ec2(api: Api, action: Action, answer: Answer) -> Response:
    """Return the response of an ec2 call."""
    inner = write_members(action.output, answer.result) if action.output is not None else ""
    return envelope(api, action, answer, inner + f"<requestId>{answer.request_id}</requestId>")


def envelope(api: Api, action: Action, answer: Answer, inner: str) -> Response:
    """Return the XML document around a result."""
    name = f"{action.name}Response"
    body = f'<{name} xmlns="{api.namespace}">{inner}</{name}>'
    headers = {
        "content-type": "text/xml",
        "x-amzn-requestid": answer.request_id,
        **answer.headers,
    }
    return Response(answer.status or action.status, headers, body.encode())


def refuse_query(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error as the query services send it."""
    status = status_of(api, error)
    fault = api.fault(error.code)
    detail = details(error, fault.code if fault is not None else error.code)
    kind = "Sender" if status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{api.namespace}"><Error><Type>{kind}</Type>{detail}</Error>'
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return xml_error(status, error, body, request_id)


def refuse_ec2(api: Api, error: AwsError, request_id: str) -> Response:
    """Return an error as EC2 sends it."""
    body = (
        f"{DECLARATION}<Response><Errors><Error>{details(error, error.code)}</Error></Errors>"
        f"<RequestID>{request_id}</RequestID></Response>"
    )
    return xml_error(error.status, error, body, request_id)


def details(error: AwsError, code: str) -> str:
    """Return the elements within Error."""
    extra = "".join(f"<{k}>{escaped(str(v))}</{k}>" for k, v in error.fields.items())
    return f"<Code>{code}</Code><Message>{escaped(error.message)}</Message>{extra}"


def xml_error(status: int, error: AwsError, body: str, request_id: str) -> Response:
    """Return an error document."""
    headers = {"content-type": "text/xml", "x-amzn-requestid": request_id, **error.headers}
    return Response(status, headers, body.encode())


QUERY = Protocol(parse_query, serialize_query, refuse_query)
EC2 = Protocol(parse_ec2, serialize_ec2, refuse_ec2)
