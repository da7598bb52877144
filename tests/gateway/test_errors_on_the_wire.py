"""Refusals and errors as clients see them, in every protocol."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from fake_services import KEY, ROOT, SESSION, Served, service, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import Answer, send, signed
from recorder import Recorder

from cloche.core.errors import AwsError, unsupported
from cloche.gateway import LocalRequest, Response
from cloche.gateway.exchange import PROTOCOLS
from cloche.gateway.message import Request
from cloche.gateway.shapes import api
from cloche.operation import Reply

SEEN: dict[str, Any] = {}
DENIED = "AccessDeniedException"


def describe_endpoint(call: Any, *, EndpointName: str) -> dict[str, Any]:
    if EndpointName == "bug":
        raise RuntimeError("a bug")
    if EndpointName == "typo":
        return {"EndpointNam": "x"}
    SEEN["call"] = call
    raise AwsError("ValidationException", 'Could not find endpoint "x".')


def create_model(call: Any, *, ModelName: str, Tags: Any = None) -> dict[str, Any]:
    return {"ModelArn": f"arn:aws:sagemaker:us-east-1:111122223333:model/{ModelName}"}


def invoke_endpoint(call: Any, *, EndpointName: str, Body: bytes = b"") -> dict[str, Any]:
    if EndpointName == "unsupported":
        raise unsupported("this")
    fields = {"OriginalStatusCode": 500, "OriginalMessage": "boom", "LogStreamArn": "arn"}
    raise AwsError("ModelError", "Received server error (500)", fields=fields)


def get_role(call: Any, *, RoleName: str) -> dict[str, Any]:
    if RoleName == "bug":
        raise RuntimeError("a bug")
    if RoleName == "unsupported":
        raise unsupported("this")
    raise AwsError("NoSuchEntity", "The role with name <x> cannot be found.")


def get_object(call: Any, *, Bucket: str, Key: str, **_: Any) -> Reply:
    if Key == "bug":
        raise RuntimeError("a bug")
    if Key == "unsupported":
        raise unsupported("this")
    if Key == "missing":
        text = "The specified key does not exist."
        raise AwsError("NoSuchKey", text, 404, fields={"Key": "a<&>\r"})
    raise AwsError("NotModified", "Not Modified", 304)


def delete_objects(call: Any, *, Bucket: str, Delete: Any) -> dict[str, Any]:
    return {}


def create_role(
    call: Any, *, RoleName: str, AssumeRolePolicyDocument: str, Tags: Any = None
) -> None:
    raise AwsError("MalformedPolicyDocument", "no")


def describe_alarms(call: Any) -> None:
    raise AwsError("ResourceNotFound", "No such alarm")


def get_function(call: Any, *, FunctionName: str) -> None:
    raise AwsError("ResourceNotFoundException", "Function not found: x")


def describe_vpcs(call: Any) -> None:
    raise AwsError("InvalidVpcID.NotFound", "The vpc ID 'x' does not exist")


def list_metrics(call: Any, *, Namespace: str = "") -> dict[str, Any]:
    return {"Metrics": [{"Namespace": Namespace}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    handlers: dict[str, dict[str, Any]] = {
        "sagemaker": {"DescribeEndpoint": describe_endpoint, "CreateModel": create_model},
        "sagemaker-runtime": {"InvokeEndpoint": invoke_endpoint},
        "iam": {"GetRole": get_role, "CreateRole": create_role},
        "s3": {
            "GetObject": get_object,
            "HeadObject": get_object,
            "DeleteObjects": delete_objects,
        },
        "cloudwatch": {"DescribeAlarms": describe_alarms, "ListMetrics": list_metrics},
        "lambda": {"GetFunction": get_function},
        "ec2": {"DescribeVpcs": describe_vpcs},
    }
    services = (service(name, these) for name, these in handlers.items())
    with serving(tmp_path_factory.mktemp("errors"), *services) as one:
        yield one


CALLS: dict[str, Any] = {
    "sagemaker": lambda c: c.describe_endpoint(EndpointName="x"),
    "sagemaker-runtime": lambda c: c.invoke_endpoint(EndpointName="x", Body=b"1"),
    "iam": lambda c: c.get_role(RoleName="x"),
    "s3": lambda c: c.get_object(Bucket="bucket", Key="missing"),
    "cloudwatch": lambda c: c.describe_alarms(),
    "lambda": lambda c: c.get_function(FunctionName="x"),
    "ec2": lambda c: c.describe_vpcs(),
}


@pytest.mark.parametrize(
    ("name", "status", "code", "text", "kind"),
    [
        ("sagemaker", 400, "ValidationException", 'Could not find endpoint "x".', "ClientError"),
        ("sagemaker-runtime", 424, "ModelError", "Received server error (500)", "ModelError"),
        (
            "iam",
            404,
            "NoSuchEntity",
            "The role with name <x> cannot be found.",
            "NoSuchEntityException",
        ),
        ("s3", 404, "NoSuchKey", "The specified key does not exist.", "NoSuchKey"),
        ("cloudwatch", 404, "ResourceNotFound", "No such alarm", "ResourceNotFound"),
        (
            "lambda",
            404,
            "ResourceNotFoundException",
            "Function not found: x",
            "ResourceNotFoundException",
        ),
        (
            "ec2",
            400,
            "InvalidVpcID.NotFound",
            "The vpc ID 'x' does not exist",
            "ClientError",
        ),
    ],
)
def test_error_of_a_handler(
    served: Served, name: str, status: int, code: str, text: str, kind: str
) -> None:
    with pytest.raises(ClientError) as caught:
        CALLS[name](served.client(name))
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["Error"]["Message"]) == (code, text)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["ResponseMetadata"]["RequestId"]
    assert type(caught.value).__name__ == kind


def test_members_of_an_error(served: Served) -> None:
    with pytest.raises(ClientError) as caught:
        CALLS["sagemaker-runtime"](served.client("sagemaker-runtime"))
    answer = caught.value.response
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (500, "boom")
    with pytest.raises(ClientError) as caught:
        CALLS["s3"](served.client("s3"))
    assert caught.value.response["Error"]["Key"] == "a<&>\r"
    assert caught.value.response["Error"]["Resource"] == "/bucket/missing"
    assert caught.value.response["ResponseMetadata"]["HostId"]


def test_not_modified_has_no_body(served: Served) -> None:
    headers = signed(served.url, "s3", "GET", "/bucket/same", KEY)
    answer = send(served.url, "GET", "/bucket/same", headers)
    assert (answer.status, answer.body) == (304, b"")


def test_head_has_no_body(served: Served) -> None:
    headers = signed(served.url, "s3", "HEAD", "/bucket/missing", KEY)
    answer = send(served.url, "HEAD", "/bucket/missing", headers)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("name", "ask", "code"),
    [
        ("sagemaker", lambda c: c.describe_endpoint(EndpointName="bug"), "InternalFailure"),
        ("sagemaker", lambda c: c.describe_endpoint(EndpointName="typo"), "InternalFailure"),
        ("iam", lambda c: c.get_role(RoleName="bug"), "InternalFailure"),
        ("s3", lambda c: c.get_object(Bucket="bucket", Key="bug"), "InternalError"),
    ],
)
def test_bug_is_told_and_logged(
    served: Served, caplog: pytest.LogCaptureFixture, name: str, ask: Any, code: str
) -> None:
    with caplog.at_level(logging.ERROR, "cloche.gateway"), pytest.raises(ClientError) as caught:
        ask(served.client(name))
    answer = caught.value.response
    assert answer["Error"]["Code"] == code
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "Traceback" in caplog.text
    if name != "s3":
        assert answer["ResponseMetadata"]["RequestId"] in caplog.text


@pytest.mark.parametrize(
    ("name", "ask", "code", "text"),
    [
        (
            "sagemaker",
            lambda c: c.list_endpoints(),
            "UnknownOperationException",
            "Cloche does not support the operation ListEndpoints of sagemaker.",
        ),
        (
            "sagemaker",
            lambda c: c.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::1:role/x"),
            "ValidationException",
            "Cloche does not support the parameter ExecutionRoleArn of CreateModel.",
        ),
        (
            "sagemaker",
            lambda c: c.create_model(ModelName="m", Containers=[], EnableNetworkIsolation=True),
            "ValidationException",
            "Cloche does not support the parameters Containers, EnableNetworkIsolation of "
            "CreateModel.",
        ),
        (
            "s3",
            lambda c: c.get_bucket_acl(Bucket="bucket"),
            "NotImplemented",
            "Cloche does not support the operation GetBucketAcl of s3.",
        ),
        (
            "iam",
            lambda c: c.list_users(),
            "InvalidAction",
            "Cloche does not support the operation ListUsers of iam.",
        ),
        (
            "lambda",
            lambda c: c.list_functions(),
            "UnknownOperationException",
            "Cloche does not support the operation ListFunctions of lambda.",
        ),
        (
            "logs",
            lambda c: c.describe_log_groups(),
            "UnknownOperationException",
            "Cloche does not support the service logs.",
        ),
        (
            "sns",
            lambda c: c.list_topics(),
            "UnknownOperationException",
            "Cloche does not support the service sns.",
        ),
        (
            "batch",
            lambda c: c.describe_jobs(jobs=["x"]),
            "UnknownOperationException",
            "Cloche does not support the service batch.",
        ),
        (
            "sagemaker-featurestore-runtime",
            lambda c: c.get_record(FeatureGroupName="x", RecordIdentifierValueAsString="y"),
            "UnknownOperationException",
            "Cloche does not support the operation GetRecord of sagemaker-featurestore-runtime.",
        ),
        (
            "sagemaker-runtime",
            lambda c: c.invoke_endpoint(EndpointName="unsupported", Body=b""),
            "ValidationError",
            "Cloche does not support this.",
        ),
        (
            "iam",
            lambda c: c.get_role(RoleName="unsupported"),
            "ValidationError",
            "Cloche does not support this.",
        ),
        (
            "s3",
            lambda c: c.get_object(Bucket="bucket", Key="unsupported"),
            "NotImplemented",
            "Cloche does not support this.",
        ),
    ],
)
def test_what_is_not_supported_is_named(
    served: Served, name: str, ask: Any, code: str, text: str
) -> None:
    retrying = served.client(name, retries={"total_max_attempts": 4, "mode": "standard"})
    with pytest.raises(ClientError) as caught:
        ask(retrying)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["Error"]["Message"]) == (code, text)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] in (400, 501)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", None),
        (b"\xff\xfe", None),
        (b'{"EndpointName": "\\ud800"}', None),
        (b"[" * 100_000, None),
        (b"[]", "Start of list found where not expected"),
        (b'"x"', "Expected null"),
        (b'{"EndpointName": 5}', "NUMBER_VALUE can not be converted to a String"),
        (b'{"EndpointName": true}', "TRUE_VALUE can not be converted to a String"),
        (b'{"EndpointName": {}}', "Start of structure or map found where not expected."),
        (b'{"EndpointName": []}', "Start of list found where not expected"),
    ],
)
def test_malformed_json(served: Served, body: bytes, text: str | None) -> None:
    target = {"X-Amz-Target": "SageMaker.DescribeEndpoint"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=body)
    answer = send(served.url, "POST", "/", headers, body)
    refused = json.loads(answer.body)
    assert (answer.status, refused["__type"]) == (400, "SerializationException")
    assert text is None or refused["message"] == text


@pytest.mark.parametrize("tags", ["x", 5, {"Key": "a"}])
def test_wrong_type_where_a_list_belongs(served: Served, tags: Any) -> None:
    target = {"X-Amz-Target": "SageMaker.CreateModel"}
    body = json.dumps({"ModelName": "m", "Tags": tags}).encode()
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=body)
    answer = send(served.url, "POST", "/", headers, body)
    assert (answer.status, json.loads(answer.body)["__type"]) == (400, "SerializationException")


@pytest.mark.parametrize("number", [1 << 31, 1 << 70, -(1 << 31) - 1, 1e30, "5"])
def test_integers_that_do_not_fit(number: Any) -> None:
    action = api("sagemaker").action("ListEndpoints")
    assert action is not None
    with pytest.raises(AwsError) as caught:
        body = json.dumps({"MaxResults": number}).encode()
        PROTOCOLS["json"].parse(action, Request(method="POST", path="/", body=body), {})
    kind = "STRING_VALUE" if number == "5" else "NUMBER_VALUE"
    assert caught.value.message == f"{kind} can not be converted to an Integer"


def test_region_that_is_none(served: Served) -> None:
    client = SESSION.client(
        "sagemaker",
        endpoint_url=served.url,
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
    )
    client.meta.events.register(
        "before-sign.*", lambda request, **_: request.context.update(signing={"region": "..%2f"})
    )
    with pytest.raises(ClientError, match="Credential should be scoped to a valid region"):
        client.describe_endpoint(EndpointName="x")


def test_unknown_and_null_members_are_ignored(served: Served) -> None:
    target = {"X-Amz-Target": "SageMaker.CreateModel"}
    body = b'{"ModelName": "m", "Tags": null, "Nonsense": {"a": 1}}'
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=body)
    assert send(served.url, "POST", "/", headers, body).status == 200


def test_path_that_is_no_text(served: Served) -> None:
    for path in ("/bucket/%ff%fe", "/bucket?prefix=%ff"):
        headers = signed(served.url, "s3", "GET", path, KEY)
        answer = send(served.url, "GET", path, headers)
        assert (answer.status, answer.xml["Code"]) == (400, "InvalidURI")
        assert answer.xml["Message"] == "Couldn't parse the specified URI."


def test_operation_that_does_not_exist(served: Served) -> None:
    target = {"X-Amz-Target": "SageMaker.MakeTea"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=b"{}")
    body = json.loads(send(served.url, "POST", "/", headers, b"{}").body)
    assert body["message"] == "Cloche does not support the operation MakeTea of sagemaker."
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = signed(served.url, "iam", "POST", "/", KEY, headers=form, body=b"Version=x")
    answer = send(served.url, "POST", "/", headers, b"Version=x")
    assert (answer.status, answer.xml["Code"]) == (400, "MissingAction")


def test_cloudwatch_in_all_its_protocols(served: Served) -> None:
    assert served.client("cloudwatch").list_metrics(Namespace="n")["Metrics"] == [
        {"Namespace": "n"}
    ]
    body = b"Action=ListMetrics&Version=2010-08-01&Namespace=n"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = signed(served.url, "monitoring", "POST", "/", KEY, headers=form, body=body)
    answer = send(served.url, "POST", "/", headers, body)
    assert (answer.status, answer.xml["Namespace"]) == (200, "n")
    path = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
    asked = {"smithy-protocol": "rpc-v2-cbor", "Content-Type": "application/cbor"}
    body = b"\xa1\x69Namespace\x61n"
    headers = signed(served.url, "monitoring", "POST", path, KEY, headers=asked, body=body)
    answer = send(served.url, "POST", path, headers, body)
    assert answer.status == 200
    assert answer.body == b"\xa1\x67Metrics\x81\xa1\x69Namespace\x61n"
    assert answer.headers["smithy-protocol"] == "rpc-v2-cbor"
    for bad in (
        b"\xa1",
        b"\x9f\x9f",
        b"\xff",
        b"\xa1\x69Namespace\x01",
        b"\x1b" + b"\xff" * 8,
        b"\x81" * 5000,
    ):
        headers = signed(served.url, "monitoring", "POST", path, KEY, headers=asked, body=bad)
        answer = send(served.url, "POST", path, headers, bad)
        assert (answer.status, b"SerializationException" in answer.body) == (400, True)


def test_hosts(served: Served) -> None:
    """A bucket in the host's name, and AWS's own host names (which arrive through the proxy)."""
    for host, path in (
        ("bucket.s3.localhost", "/missing"),
        ("bucket.s3.us-east-1.amazonaws.com", "/missing"),
        ("bucket.s3.amazonaws.com", "/missing"),
        ("my.dotted.bucket.s3-us-west-2.amazonaws.com", "/missing"),
        ("s3.amazonaws.com", "/bucket/missing"),
        ("s3.us-east-1.amazonaws.com", "/bucket/missing"),
        ("s3.localhost", "/bucket/missing"),
        ("localhost", "/bucket/missing"),
    ):
        headers = signed(f"http://{host}", "s3", "GET", path, KEY)
        answer = send(served.url, "GET", path, {**headers, "Host": host})
        assert (answer.status, answer.xml["Code"]) == (404, "NoSuchKey"), host
    url = SESSION.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
    ).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "missing"})
    host, _, path = url.removeprefix("https://").partition("/")
    assert host == "bucket.s3.amazonaws.com"
    answer = send(served.url, "GET", f"/{path}", {"Host": host})
    assert (answer.status, answer.xml["Code"]) == (404, "NoSuchKey")


def test_call_that_a_handler_sees(served: Served) -> None:
    before = datetime.now(UTC)
    with pytest.raises(ClientError) as caught:
        served.client("sagemaker").describe_endpoint(EndpointName="seen")
    call = SEEN["call"]
    assert (call.operation, call.account, call.region) == (
        "DescribeEndpoint",
        "111122223333",
        "us-east-1",
    )
    assert call.principal is KEY.principal and call.gang is None
    assert call.request_id == caught.value.response["ResponseMetadata"]["RequestId"]
    assert abs((call.now - before).total_seconds()) < 10
    assert call.http.base_url == served.url


def test_own_paths(served: Served) -> None:
    answer = send(served.url, "GET", "/_cloche/health")
    body = json.loads(answer.body)
    assert answer.status == 200
    assert body == {"status": "ok", "version": version("cloche")}
    assert send(served.url, "GET", "/_cloche/nothing").status == 403
    assert asked(served, "/_cloche/nothing").status == 404

    async def credentials(request: LocalRequest) -> Response:
        if "bad" in request.query:
            raise AwsError("AccessDenied", "no", 403)
        return Response(200, {}, json.dumps({"gang": request.gang}).encode())

    served.gateway.local.add("/_cloche/credentials", credentials, access="gang")
    assert send(served.url, "GET", "/_cloche/credentials").status == 403
    assert json.loads(asked(served, "/_cloche/credentials").body) == {"gang": None}
    assert asked(served, "/_cloche/credentials?bad=1").status == 403


def asked(served: Served, path: str) -> Answer:
    """Ask for one of the platform's own paths, signed with root's key."""
    headers = signed(served.url, "cloche", "GET", path, KEY)
    return send(served.url, "GET", path, headers)


async def test_gang_is_in_the_call(served: Served) -> None:
    app = served.gateway.for_gang("job-1")
    body = b'{"EndpointName": "x"}'
    target = {"X-Amz-Target": "SageMaker.DescribeEndpoint"}
    headers = signed(
        "http://127.0.0.1:4599", "sagemaker", "POST", "/", KEY, headers=target, body=body
    )
    headers |= {"Host": "127.0.0.1:4599", "Content-Length": str(len(body))}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    sent = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, take)
    assert sent[0]["status"] == 400
    assert SEEN["call"].gang == "job-1"


@pytest.mark.parametrize(
    ("name", "action", "parameters", "code", "status"),
    [
        ("sagemaker", "DescribeEndpoint", {"EndpointName": "x"}, DENIED, 400),
        ("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": "x", "Body": b""}, DENIED, 403),
        ("sts", "GetCallerIdentity", {}, "AccessDenied", 403),
        ("s3", "GetObject", {"Bucket": "b", "Key": "k"}, "AccessDenied", 403),
        ("cloudwatch", "ListMetrics", {}, "AccessDenied", 403),
        ("logs", "DescribeLogGroups", {}, DENIED, 400),
        ("iam", "ListRoles", {}, "AccessDenied", 403),
        ("ec2", "DescribeVpcs", {}, "UnauthorizedOperation", 403),
    ],
)
def test_authorization_is_asked(
    tmp_path: Path, name: str, action: str, parameters: dict[str, Any], code: str, status: int
) -> None:
    ran: list[str] = []
    nobody = Recorder(denied={f"{name}:{action}"})

    def handler(call: Any, **given: Any) -> dict[str, Any]:
        ran.append(action)
        return {}

    with serving(tmp_path, service(name, {action: handler}), authorizer=nobody) as served:
        method = getattr(served.client(name), xform_name(action))
        with pytest.raises(ClientError, match="is not authorized") as refused:
            method(**parameters)
        nobody.denied.clear()
        method(**parameters)  # control
    error = refused.value.response
    text = (
        f"User: {ROOT.arn} is not authorized to perform: {name}:{action}"
        f"{'' if name in ('s3', 'ec2', 'sagemaker', 'cloudwatch') else ' on resource: *'}"
        f" because no identity-based policy allows the {name}:{action} action"
    )
    if name == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
    assert (error["Error"]["Code"], error["Error"]["Message"]) == (code, text)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == status
    assert ran == [action]
    assert nobody.take() == [(f"{name}:{action}", "*")] * 2


def test_what_is_wrong_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    nobody = Recorder(denied={"sagemaker:DescribeEndpoint"})
    one = service("sagemaker", {"DescribeEndpoint": describe_endpoint})
    wrong = pytest.raises(ClientError, match="failed to satisfy constraint")
    with serving(tmp_path, one, authorizer=nobody) as served, wrong:
        served.client("sagemaker").describe_endpoint(EndpointName="-")
    assert nobody.take() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(value=st.fixed_dictionaries({}, optional={"ModelName": JSON, "Tags": JSON}) | JSON)
def test_no_json_makes_the_server_fail(served: Served, value: Any) -> None:
    body = json.dumps(value).encode()
    target = {"X-Amz-Target": "SageMaker.CreateModel"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=body)
    assert send(served.url, "POST", "/", headers, body).status in (200, 400)


PARTS = st.sampled_from(["Tags", "member", "1", "2", "", "Key", "Value", "Action", "9" * 5000, "²"])


@FUZZ
@given(
    st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=5), st.text(max_size=5)), max_size=6)
)
def test_no_form_makes_the_server_fail(served: Served, pairs: list[tuple[list[str], str]]) -> None:
    form = [("Action", "CreateRole"), ("Version", "2010-05-08"), ("RoleName", "r")]
    form += [(".".join(parts), value) for parts, value in pairs]
    body = urlencode(form).encode()
    asked = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = signed(served.url, "iam", "POST", "/", KEY, headers=asked, body=body)
    assert send(served.url, "POST", "/", headers, body).status == 400


XML = st.recursive(
    st.text("<>&;a1 \r", max_size=5) | st.sampled_from(["<Key>a</Key>", "<Quiet>maybe</Quiet>"]),
    lambda inner: st.tuples(
        st.sampled_from(["Delete", "Object", "Key", "Size", "LastModifiedTime"]), inner
    ).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>"),
    max_leaves=6,
)


@FUZZ
@given(XML)
def test_no_xml_makes_the_server_fail(served: Served, text: str) -> None:
    body = f"<Delete>{text}</Delete>".encode()
    headers = signed(served.url, "s3", "POST", "/bucket?delete", KEY, body=body)
    assert send(served.url, "POST", "/bucket?delete", headers, body).status in (200, 400)


NAMES = ["Authorization", "X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Target", "Host"]
QUERY = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Algorithm",
    "Signature",
    "AWSAccessKeyId",
    "Expires",
    "Action",
    "max-keys",
]
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40) | st.sampled_from(
    [
        "AWS4-HMAC-SHA256",
        f"AWS4-HMAC-SHA256 Credential={KEY.access_key_id}/20260101/us-east-1/s3/aws4_request, "
        "SignedHeaders=host, Signature=00",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders,Signature=",
        "AWS a:b",
        "20260101T000000Z",
        "20269999T999999Z",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "SageMaker.",
        ".",
        "²²²",
    ]
)


@FUZZ
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"]),
    path=st.sampled_from(["/", "/bucket", "/bucket/key", "//", "/endpoints/x/invocations", "/%"]),
    query=st.dictionaries(st.sampled_from(QUERY), TEXT, max_size=6),
    headers=st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=4),
)
def test_no_head_makes_the_server_fail(
    served: Served, method: str, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    tail = "&".join(f"{k}={v.replace('#', '').replace(' ', '+')}" for k, v in query.items())
    tail = tail.encode("latin-1", "replace").decode("ascii", "replace").replace("\ufffd", "%B2")
    answer = send(served.url, method, f"{path}?{tail}" if tail else path, headers)
    assert 400 <= answer.status < 500 or answer.status == 501, answer
