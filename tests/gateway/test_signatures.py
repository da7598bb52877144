"""Who may call: every way to sign, and AWS's own words for every way to get it wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from fake_services import ACCOUNT, KEY, Keys, Served, service, serving
from raw_http import send, signed

from cloche.core.clock import ManualClock
from cloche.core.identity import Credential, Principal
from cloche.gateway.signature import signing_key

ROLE = f"arn:aws:iam::{ACCOUNT}:role/service-role/Training"
SESSION = Credential(
    access_key_id="ASIAEXAMPLE000000002",
    secret_access_key="session/secret",
    session_token="token+/=" * 8,
    expires=datetime.now(UTC) + timedelta(hours=1),
    principal=Principal(
        kind="assumed-role",
        account=ACCOUNT,
        arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/Training/me",
        user_id="AROA:me",
        role_arn=ROLE,
    ),
)
STRANGER = replace(KEY, access_key_id="AKIANOBODYKNOWSTHIS1")
GENERIC = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)
INVALID = "The security token included in the request is invalid."
EXPIRED = "The security token included in the request is expired"


def list_endpoints(call: Any) -> dict[str, Any]:
    return {"Endpoints": []}


def get_caller_identity(call: Any) -> dict[str, Any]:
    return {"UserId": "x", "Account": call.account, "Arn": call.principal.arn}


def invoke_endpoint(call: Any, *, EndpointName: str, Body: bytes) -> dict[str, Any]:
    return {"Body": Body}


def get_object(call: Any, *, Bucket: str, Key: str, **_: Any) -> dict[str, Any]:
    return {"Body": f"{Bucket}/{Key}".encode()}


async def put_object(call: Any, *, Bucket: str, Key: str, Body: Any, **_: Any) -> dict[str, Any]:
    return {"ETag": str(len(b"".join([piece async for piece in Body])))}


def list_objects_v2(call: Any, *, Bucket: str, Prefix: str = "", **_: Any) -> dict[str, Any]:
    return {"Name": Bucket, "Prefix": Prefix}


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[Served]:
    keys = Keys({one.access_key_id: one for one in (KEY, SESSION)})
    services = (
        service("sagemaker", {"ListEndpoints": list_endpoints}),
        service("sagemaker-runtime", {"InvokeEndpoint": invoke_endpoint}),
        service("sts", {"GetCallerIdentity": get_caller_identity}),
        service(
            "s3",
            {"GetObject": get_object, "PutObject": put_object, "ListObjectsV2": list_objects_v2},
        ),
        service("ec2", {"DescribeVpcs": lambda call: {}}),
    )
    folder: Path = tmp_path_factory.mktemp("signatures")
    with serving(folder, *services, keys=keys, clock=clock) as one:
        yield one


@pytest.fixture(autouse=True)
def now(clock: ManualClock) -> None:
    clock.time = datetime.now(UTC)


CALLS: dict[str, Any] = {
    "sagemaker": lambda client: client.list_endpoints(),
    "sagemaker-runtime": lambda client: client.invoke_endpoint(EndpointName="e", Body=b"1"),
    "sts": lambda client: client.get_caller_identity(),
    "s3": lambda client: client.get_object(Bucket="bucket", Key="key"),
    "ec2": lambda client: client.describe_vpcs(),
}
REFUSALS = [
    ("sagemaker", "secret", 400, "InvalidSignatureException", GENERIC),
    ("sagemaker", "key", 400, "UnrecognizedClientException", INVALID),
    ("sagemaker", "no token", 400, "UnrecognizedClientException", INVALID),
    ("sagemaker", "wrong token", 400, "UnrecognizedClientException", INVALID),
    ("sagemaker", "over", 400, "ExpiredTokenException", EXPIRED),
    ("sagemaker-runtime", "secret", 403, "InvalidSignatureException", GENERIC),
    ("sagemaker-runtime", "key", 403, "UnrecognizedClientException", INVALID),
    ("sagemaker-runtime", "over", 403, "ExpiredTokenException", EXPIRED),
    ("sts", "secret", 403, "SignatureDoesNotMatch", GENERIC),
    ("sts", "key", 403, "InvalidClientTokenId", INVALID),
    ("sts", "no token", 403, "InvalidClientTokenId", INVALID),
    ("sts", "wrong token", 403, "InvalidClientTokenId", INVALID),
    ("sts", "over", 403, "ExpiredToken", EXPIRED),
    (
        "s3",
        "secret",
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check "
        "your key and signing method.",
    ),
    (
        "s3",
        "key",
        403,
        "InvalidAccessKeyId",
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    (
        "s3",
        "wrong token",
        400,
        "InvalidToken",
        "The provided token is malformed or otherwise invalid.",
    ),
    ("s3", "over", 400, "ExpiredToken", "The provided token has expired."),
    (
        "ec2",
        "secret",
        401,
        "AuthFailure",
        "AWS was not able to validate the provided access credentials",
    ),
]


def mistaken(served: Served, clock: ManualClock, name: str, mistake: str) -> Any:
    """Return a client that makes a mistake."""
    if mistake == "secret":
        return served.client(name, secret="not the secret")
    if mistake == "key":
        return served.client(name, credential=STRANGER)
    if mistake == "no token":
        return served.client(name, credential=replace(SESSION, session_token=None))
    if mistake == "wrong token":
        return served.client(name, credential=SESSION, token="another")
    assert SESSION.expires is not None
    served.gateway.parts.credentials.known[SESSION.access_key_id] = replace(  # type: ignore[attr-defined]
        SESSION, expires=clock.now()
    )
    return served.client(name, credential=SESSION)


@pytest.mark.parametrize(("name", "mistake", "status", "code", "text"), REFUSALS)
def test_refusal_in_aws_own_words(
    served: Served,
    clock: ManualClock,
    name: str,
    mistake: str,
    status: int,
    code: str,
    text: str,
) -> None:
    client = mistaken(served, clock, name, mistake)
    try:
        with pytest.raises(ClientError) as caught:
            CALLS[name](client)
    finally:
        served.gateway.parts.credentials.known[SESSION.access_key_id] = SESSION  # type: ignore[attr-defined]
    error = caught.value.response
    assert (error["Error"]["Code"], error["Error"]["Message"]) == (code, text)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("credential", [KEY, SESSION], ids=["root", "session"])
def test_right_signature_is_let_in(served: Served, name: str, credential: Credential) -> None:
    CALLS[name](served.client(name, credential=credential))


@pytest.mark.parametrize(
    ("name", "code"),
    [("sagemaker", "InvalidSignatureException"), ("sts", "SignatureDoesNotMatch")],
)
def test_old_and_early_signatures(served: Served, clock: ManualClock, name: str, code: str) -> None:
    client = served.client(name)
    clock.advance(14 * 60)
    CALLS[name](client)
    clock.advance(2 * 60)
    with pytest.raises(ClientError) as caught:
        CALLS[name](client)
    assert caught.value.response["Error"]["Code"] == code
    assert re.fullmatch(
        r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z "
        r"\(\d{8}T\d{6}Z - 15 min\.\)",
        caught.value.response["Error"]["Message"],
    )
    clock.advance(-32 * 60)
    with pytest.raises(ClientError, match=r"Signature not yet current: .* \(.*Z \+ 15 min\.\)"):
        CALLS[name](client)


def test_s3_clock_skew(served: Served, clock: ManualClock) -> None:
    for minutes in (16, -16):
        clock.time = datetime.now(UTC) + timedelta(minutes=minutes)
        path = "/bucket/key"
        headers = signed(served.url, "s3", "GET", path, KEY)
        answer = send(served.url, "GET", path, headers)
        assert answer.status == 403
        assert answer.xml["Code"] == "RequestTimeTooSkewed"
        assert answer.xml["Message"] == (
            "The difference between the request time and the current time is too large."
        )
        assert answer.xml["MaxAllowedSkewMilliseconds"] == "900000"


def test_nobody_signed(served: Served) -> None:
    answer = send(served.url, "GET", "/bucket/key")
    assert (answer.status, answer.xml["Code"], answer.xml["Message"]) == (
        403,
        "AccessDenied",
        "Access Denied",
    )
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    answer = send(served.url, "POST", "/", target, b"{}")
    assert json.loads(answer.body) == {
        "__type": "MissingAuthenticationTokenException",
        "message": "Missing Authentication Token",
    }
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    answer = send(served.url, "POST", "/", form, body)
    assert (answer.status, answer.xml["Code"], answer.xml["Message"]) == (
        403,
        "MissingAuthenticationToken",
        "Request is missing Authentication Token",
    )


def test_incomplete_authorization(served: Served) -> None:
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, body=b"{}")
    headers["X-Amz-Target"] = "SageMaker.ListEndpoints"
    headers["Authorization"] = headers["Authorization"].partition(", Signature")[0]
    answer = send(served.url, "POST", "/", headers, b"{}")
    error = json.loads(answer.body)
    assert answer.status == 400
    assert error["__type"] == "IncompleteSignatureException"
    assert error["message"] == (
        "Authorization header requires 'Signature' parameter. "
        f"Authorization={headers['Authorization']}"
    )


def test_body_is_covered(served: Served) -> None:
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=b"{}")
    assert send(served.url, "POST", "/", headers, b"{}").status == 200
    answer = send(served.url, "POST", "/", headers, b"{ }")
    assert json.loads(answer.body)["__type"] == "InvalidSignatureException"


def test_s3_body_is_covered(served: Served) -> None:
    headers = signed(served.url, "s3", "PUT", "/bucket/key", KEY, body=b"hello")
    assert send(served.url, "PUT", "/bucket/key", headers, b"hello").status == 200
    answer = send(served.url, "PUT", "/bucket/key", headers, b"HELLO")
    assert (answer.status, answer.xml["Code"]) == (400, "XAmzContentSHA256Mismatch")
    assert answer.xml["Message"] == (
        "The provided 'x-amz-content-sha256' header does not match what was computed."
    )


def test_s3_shows_what_it_signed(served: Served) -> None:
    headers = signed(served.url, "s3", "GET", "/bucket/a%20b", replace(KEY, secret_access_key="?"))
    answer = send(served.url, "GET", "/bucket/a%20b", headers)
    assert answer.xml["AWSAccessKeyId"] == KEY.access_key_id
    assert answer.xml["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert answer.xml["CanonicalRequest"].startswith("GET\n/bucket/a%20b\n\nhost:")


def test_date_of_the_scope(served: Served) -> None:
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=b"{}")
    headers["Authorization"] = re.sub(r"/\d{8}/", "/20200101/", headers["Authorization"])
    error = json.loads(send(served.url, "POST", "/", headers, b"{}").body)
    assert error["message"].startswith(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
        "HTTP: '20200101' != "
    )


KEYS = ["plain", "with space/and+plus", "ü/ñ~'()*", "a//b", "/leading", "dir/", "..", "x?y#z&=%41"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_url(served: Served, key: str, version: str) -> None:
    client = served.client("s3", credential=SESSION, signature_version=version)
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": key})
    assert ("X-Amz-Signature" in url) == (version == "s3v4")
    where = urlsplit(url)
    answer = send(served.url, "GET", f"{where.path}?{where.query}")
    assert (answer.status, answer.body) == (200, f"bucket/{key}".encode())


@pytest.mark.parametrize("key", KEYS)
def test_keys_in_signed_requests(served: Served, key: str) -> None:
    body = served.client("s3").get_object(Bucket="bucket", Key=key)["Body"]
    assert body.read() == f"bucket/{key}".encode()
    listed = served.client("s3").list_objects_v2(Bucket="bucket", Prefix=key)
    assert listed["Prefix"] == key


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_url_expires(served: Served, clock: ManualClock, version: str) -> None:
    client = served.client("s3", signature_version=version)
    parameters = {"Bucket": "bucket", "Key": "key"}
    url = client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=60)
    path = url.removeprefix(served.url)
    clock.advance(50)
    assert send(served.url, "GET", path).status == 200
    clock.advance(20)
    answer = send(served.url, "GET", path)
    assert (answer.status, answer.xml["Code"]) == (403, "AccessDenied")
    assert answer.xml["Message"] == "Request has expired"
    assert set(answer.xml) >= {"Expires", "ServerTime"}


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_url_changed(served: Served, version: str) -> None:
    client = served.client("s3", signature_version=version)
    parameters = {"Bucket": "bucket", "Key": "key"}
    url = client.generate_presigned_url("get_object", Params=parameters)
    path = url.removeprefix(served.url).replace("/key?", "/other?")
    answer = send(served.url, "GET", path)
    assert (answer.status, answer.xml["Code"]) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_upload(served: Served, version: str) -> None:
    client = served.client("s3", signature_version=version)
    parameters = {"Bucket": "bucket", "Key": "key", "ContentType": "text/plain"}
    url = client.generate_presigned_url("put_object", Params=parameters)
    path = url.removeprefix(served.url)
    answer = send(served.url, "PUT", path, {"Content-Type": "text/plain"}, b"hello")
    assert (answer.status, answer.headers["etag"]) == (200, "5")
    if version == "s3v4":
        answer = send(served.url, "PUT", path, {"Content-Type": "text/html"}, b"hello")
        assert (answer.status, answer.xml["Code"]) == (403, "SignatureDoesNotMatch")


def test_presigned_longer_than_a_week(served: Served) -> None:
    client = served.client("s3", signature_version="s3v4")
    parameters = {"Bucket": "bucket", "Key": "key"}
    url = client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=604801)
    answer = send(served.url, "GET", url.removeprefix(served.url))
    assert (answer.status, answer.xml["Code"]) == (400, "AuthorizationQueryParametersError")
    assert answer.xml["Message"] == (
        "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires "
        "must be less than 604800 seconds"
    )


def test_two_mechanisms_at_once(served: Served) -> None:
    client = served.client("s3", signature_version="s3v4")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    answer = send(served.url, "GET", url.removeprefix(served.url), {"Authorization": "AWS4 x"})
    assert (answer.status, answer.xml["Code"]) == (400, "InvalidArgument")
    assert answer.xml["Message"].startswith("Only one auth mechanism allowed;")


def test_presigned_caller_identity(served: Served) -> None:
    url = served.client("sts").generate_presigned_url("get_caller_identity", HttpMethod="GET")
    answer = send(served.url, "GET", url.removeprefix(served.url))
    assert answer.status == 200
    assert answer.xml["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_signature_of_another_service(served: Served) -> None:
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "logs", "POST", "/", KEY, headers=target, body=b"{}")
    answer = send(served.url, "POST", "/", headers, b"{}")
    assert answer.status == 400
    assert b"Cloche does not support the service logs." in answer.body


NOT_SIGNED = "There were headers present in the request which were not signed"


def sign_over(served: Served, names: str, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of `GET /bucket/key`, signed over some of them."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    hashed = "UNSIGNED-PAYLOAD"
    sent = {"host": served.url.removeprefix("http://"), "x-amz-date": stamp} | headers
    sent["x-amz-content-sha256"] = hashed
    lines = "".join(f"{name}:{sent[name]}\n" for name in names.split(";"))
    canonical = f"GET\n/bucket/key\n\n{lines}\n{names}\n{hashed}"
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = signing_key(KEY.secret_access_key, stamp[:8], "us-east-1", "s3")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={KEY.access_key_id}/{scope},SignedHeaders={names},"
        f"Signature={signature}"
    )
    return {"Host" if name == "host" else name: value for name, value in sent.items()}


@pytest.mark.parametrize(
    ("names", "headers", "unsigned"),
    [
        ("host;x-amz-date", {}, None),  # the payload's hash is signed as such
        ("host", {}, "x-amz-date"),
        ("x-amz-date", {}, "host"),
        ("host;x-amz-date", {"x-amz-a": "1", "x-amz-b": ""}, "x-amz-a, x-amz-b"),
        ("host;x-amz-a;x-amz-date", {"x-amz-a": "1"}, None),
        ("host;x-amz-date", {"x-amzn-trace-id": "Root=1"}, None),
        ("host;x-amz-date", {"content-md5": "x"}, "content-md5"),
        ("host;x-amz-date", {"range": "bytes=0-1"}, None),
        ("host;x-amz-date", {"if-range": "x"}, None),
        ("host;range;x-amz-date", {"range": "bytes=0-1", "if-range": "x"}, "if-range"),
        ("host;x-amz-date", {"content-type": "text/html", "cache-control": "x"}, None),
    ],
)
def test_what_s3_wants_signed(
    served: Served, names: str, headers: dict[str, str], unsigned: str | None
) -> None:
    answer = send(served.url, "GET", "/bucket/key", sign_over(served, names, headers))
    if unsigned is None:
        assert answer.status == 200, answer.body
    else:
        assert (answer.status, answer.xml["Code"]) == (403, "AccessDenied")
        assert (answer.xml["Message"], answer.xml["HeadersNotSigned"]) == (NOT_SIGNED, unsigned)


def test_a_name_is_signed_once(served: Served) -> None:
    headers = sign_over(served, "host;host;x-amz-date", {})
    answer = send(served.url, "GET", "/bucket/key", headers)
    assert (answer.status, answer.xml["Code"]) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("added", "text"),
    [
        ({"X-Amz-Target": "SageMaker.ListEndpoints"}, "'X-Amz-Target'"),
        ({"Content-Encoding": "gzip"}, "'Content-Encoding'"),
        ({"X-Amzn-Query-Mode": "true"}, "'X-Amzn-Query-Mode'"),
    ],
)
def test_what_the_others_want_signed(served: Served, added: dict[str, str], text: str) -> None:
    target = {} if "X-Amz-Target" in added else {"X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=b"{}")
    answer = send(served.url, "POST", "/", headers | added, b"{}")
    assert answer.status == 400
    assert json.loads(answer.body) == {
        "__type": "InvalidSignatureException",
        "message": f"{text} must be a 'SignedHeader' in the AWS Authorization.",
    }
    traced = {"X-Amzn-Trace-Id": "Root=1", "X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=traced, body=b"{}")
    assert send(served.url, "POST", "/", headers, b"{}").status == 200


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (", Basic", "'Basic' not a valid key=value pair (missing equal-sign) in "),
        (",", "'' not a valid key=value pair (missing equal-sign) in "),
        (", Signature=x", "Authorization header has 'Signature' twice, or no such "),
        (", Other=x", "Authorization header has 'Other' twice, or no such "),
    ],
)
def test_authorization_has_three_parts(served: Served, part: str, text: str) -> None:
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    headers = signed(served.url, "sagemaker", "POST", "/", KEY, headers=target, body=b"{}")
    headers["Authorization"] += part
    error = json.loads(send(served.url, "POST", "/", headers, b"{}").body)
    assert error["__type"] == "IncompleteSignatureException"
    assert error["message"].startswith(text)
    headers = signed(served.url, "s3", "GET", "/bucket/key", KEY)
    headers["Authorization"] += part
    answer = send(served.url, "GET", "/bucket/key", headers)
    assert (answer.status, answer.xml["Message"]) == (
        400,
        "The authorization header is malformed; the authorization header requires three "
        "components: Credential, SignedHeaders, and Signature.",
    )


def test_parameters_that_v2_leaves_open(served: Served) -> None:
    client = served.client("s3", signature_version="s3")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    path = url.removeprefix(served.url)
    assert send(served.url, "GET", f"{path}&cachebuster=1").status == 200
    for name in ("attributes", "legal-hold", "retention", "encryption"):
        answer = send(served.url, "GET", f"{path}&{name}=")
        assert (answer.status, answer.xml["Code"]) == (400, "InvalidRequest")
        assert answer.xml["Message"] == (
            "The authorization mechanism you have provided is not supported. Please use "
            "AWS4-HMAC-SHA256."
        )
    for name in ("tagging", "acl", "partNumber"):
        answer = send(served.url, "GET", f"{path}&{name}=")
        assert (answer.status, answer.xml["Code"]) == (403, "SignatureDoesNotMatch")
    listing = client.generate_presigned_url("list_objects_v2", Params={"Bucket": "bucket"})
    assert send(served.url, "GET", f"{listing.removeprefix(served.url)}&prefix=x").status == 200
