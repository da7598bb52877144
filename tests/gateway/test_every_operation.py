"""Every operation of every service we name, through botocore both ways.

botocore serializes made-up parameters and our parse gives the same back; our serialize writes a
made-up result and botocore's parser reads the same.
"""

from __future__ import annotations

import copy
import io
import random
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from xml.etree import ElementTree

import generated_values as generated
import pytest
from botocore import handlers, parsers, serialize
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

from cloche.gateway.exchange import PROTOCOLS
from cloche.gateway.message import Request
from cloche.gateway.protocol import Answer
from cloche.gateway.routing import CBOR, CBOR_PATH, RestRouter
from cloche.gateway.shapes import Action, api

CASES = [
    ("sagemaker", "json"),
    ("sagemaker-runtime", "rest-json"),
    ("s3", "rest-xml"),
    ("sts", "query"),
    ("iam", "query"),
    ("logs", "json"),
    ("cloudwatch", "json"),
    ("cloudwatch", "query"),
    ("cloudwatch", CBOR),
    ("lambda", "rest-json"),
    ("application-autoscaling", "json"),
    ("ec2", "ec2"),
]
# What can't come back the same, and why.
DIFFERENT = {
    ("s3", "PutBucketNotification"): "Event and Events share one element; deprecated",
    ("s3", "GetBucketNotification"): "Event and Events share one element; deprecated",
    ("s3", "GetBucketLocation"): "the root is the value: a handler of botocore's reads it (below)",
}


class Stream:
    """The body of a request that an operation streams."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data


def sent(operation: OperationModel, protocol: str, parameters: dict[str, Any]) -> Request:
    """Return the request that botocore makes of parameters."""
    made = serialize.create_serializer(protocol, include_validation=False).serialize_to_request(
        copy.deepcopy(parameters), operation
    )
    body = made["body"]
    if isinstance(body, dict):
        body = urlencode(body).encode()
    url = urlsplit(made["url_path"])
    query = made.get("query_string") or ""
    if isinstance(query, dict):
        query = urlencode(query, doseq=True, quote_via=quote)
    query = "&".join(part for part in (url.query, query) if part)
    body = body.encode() if isinstance(body, str) else body
    return Request(
        method=made["method"],
        path=url.path,
        query_string=query,
        query=tuple(parse_qsl(query, keep_blank_values=True)),
        headers={key.lower(): str(item) for key, item in dict(made["headers"]).items()},
        body=body,
        stream=Stream(body),  # type: ignore[arg-type]
    )


def names(service: str, protocol: str, request: Request, router: RestRouter) -> Any:
    """Return the operations that we take a request for, and its labels."""
    if protocol == "json":
        return (request.headers["x-amz-target"].rpartition(".")[2],), {}
    if protocol == CBOR:
        match = CBOR_PATH.match(request.path)
        assert match is not None
        return (match["operation"],), {}
    if protocol in ("query", "ec2"):
        return (dict(parse_qsl(request.body.decode()))["Action"],), {}
    return router.find(request.method, request.path, dict(request.query), request.headers)


def read_back(operation: OperationModel, protocol: str, action: Action, result: Any) -> Any:
    """Return what botocore reads of our response, and its status."""
    answer = Answer(result, None, {}, "00000000-0000-0000-0000-000000000000")
    response = PROTOCOLS[protocol].serialize(
        api(operation.service_model.service_name), action, answer
    )
    assert isinstance(response.body, bytes)
    parsed = parsers.create_parser(protocol).parse(
        {
            "status_code": response.status,
            "headers": HeadersDict(response.headers),
            "body": response.body,
            "context": {"operation_name": operation.name},
        },
        operation.output_shape,
    )
    parsed.pop("ResponseMetadata", None)
    return parsed


@pytest.mark.parametrize(("service", "protocol"), CASES)
def test_parameters_arrive_as_botocore_sent_them(service: str, protocol: str) -> None:
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    chance, router, wrong = random.Random(7), RestRouter(api(service)), []
    for name in model.operation_names:
        operation = model.operation_model(name)
        shape = operation.input_shape
        if shape is not None and shape.event_stream_name:
            continue
        parameters = generated.value(shape, chance) if shape is not None else {}
        request = sent(operation, protocol, parameters)
        found, labels = names(service, protocol, request, router)
        action = api(service).action(name)
        assert action is not None
        if name not in found:
            wrong.append(f"{name}: taken for {found}")
            continue
        parsed = PROTOCOLS[protocol].parse(action, request, labels)
        if generated.same(parsed) != generated.same(parameters):
            wrong.append(f"{name}: {difference(parameters, parsed)}")
    assert_only_known(service, wrong)


@pytest.mark.parametrize(("service", "protocol"), CASES)
def test_results_are_read_by_botocore_as_given(service: str, protocol: str) -> None:
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    chance, wrong = random.Random(11), []
    for name in model.operation_names:
        operation = model.operation_model(name)
        shape = operation.output_shape
        if shape is None or shape.event_stream_name:
            continue
        result = generated.value(shape, chance)
        for member, of in shape.members.items():
            if of.serialization.get("location") == "statusCode":
                result[member] = 202
            if of.type_name == "blob" and shape.serialization.get("payload") == member:
                result[member] = b"body"
        action = api(service).action(name)
        assert action is not None
        parsed = read_back(operation, protocol, action, result)
        if generated.same(parsed) != generated.same(result):
            wrong.append(f"{name}: {difference(result, parsed)}")
    assert_only_known(service, wrong)


def test_location_is_read_by_botocore() -> None:
    action = api("s3").action("GetBucketLocation")
    assert action is not None
    answer = Answer({"LocationConstraint": "eu-west-1"}, None, {}, "id")
    response = PROTOCOLS["rest-xml"].serialize(api("s3"), action, answer)
    assert isinstance(response.body, bytes)
    http = AWSResponse("", 200, {}, io.BytesIO())
    http._content = response.body
    parsed: dict[str, Any] = {}
    handlers.parse_get_bucket_location(parsed, http)
    assert parsed == {"LocationConstraint": "eu-west-1"}


def test_documents_have_the_names_of_s3s_reference() -> None:
    """botocore reads a document whatever its root is called; other SDKs ask for the name."""
    documents = {
        "ListObjectsV2": "ListBucketResult",
        "DeleteObjects": "DeleteResult",
        "GetObjectAcl": "AccessControlPolicy",
        "CopyObject": "CopyObjectResult",  # the model's own name
    }
    for name, root in documents.items():
        action = api("s3").action(name)
        assert action is not None
        answer = Answer({root: {}} if name == "CopyObject" else {}, None, {}, "id")
        response = PROTOCOLS["rest-xml"].serialize(api("s3"), action, answer)
        assert isinstance(response.body, bytes)
        assert ElementTree.fromstring(response.body).tag.rpartition("}")[2] == root


def assert_only_known(service: str, wrong: list[str]) -> None:
    """Fail on any difference but those listed above."""
    unknown = [line for line in wrong if (service, line.partition(":")[0]) not in DIFFERENT]
    assert not unknown, "\n".join(unknown)


def difference(one: Any, other: Any) -> dict[str, Any]:
    """Return the members that differ."""
    first, second = generated.same(one), generated.same(other)
    return {
        key: (first.get(key), second.get(key))
        for key in first.keys() | second.keys()
        if first.get(key) != second.get(key)
    }
