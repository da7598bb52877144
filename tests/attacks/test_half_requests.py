"""Requests that have no operation's form whole, or two operations': none is taken for another.

What is distinguished by a name in the query or a header must not become PutObject, GetObject or
DeleteObject when the rest is missing. The texts are S3's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from mutations import SELECTORS
from signed_client import Answer, Wire, code_of
from test_malformed import Attacked, attacking
from well_formed import LEDGER

CONTROL = (
    "At 0e393ec `PUT /b/k?uploadId=X` answered 200 and overwrote the object, the others alike."
)
# What an operation may be asked for, of those that are served, with only a name in the query.
SERVED = {
    ("GET", "acl"),
    ("GET", "tagging"),
    ("PUT", "tagging"),
    ("DELETE", "tagging"),
    ("POST", "uploads"),
    ("GET", "uploadId"),
    ("POST", "uploadId"),
    ("DELETE", "uploadId"),
    ("GET", "partNumber"),
    ("HEAD", "partNumber"),
    ("GET", "versionId"),
    ("HEAD", "versionId"),
    ("DELETE", "versionId"),
}
NOT_ALLOWED = "The specified method is not allowed against this resource."


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacking(tmp_path_factory.mktemp("home")) as one:
        yield one


def ask(
    attacked: Attacked, method: str, path: str, query: str = "", body: bytes = b"", **headers: str
) -> Answer:
    """Send a signed request to S3."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return attacked.send(Wire("s3", "s3", "rest-xml", "", method, path, query, named, body))


@pytest.mark.control(CONTROL)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
def test_no_name_of_another_operation_falls_to_the_objects_own(
    attacked: Attacked, method: str
) -> None:
    for name in SELECTORS:
        if (method, name) in SERVED:
            continue
        for query in (name, f"{name}=x", f"x=1&{name}", f"%{ord(name[0]):02x}{name[1:]}"):
            answer = ask(attacked, method, f"/{LEDGER}/plain", query, b"overwritten")
            code_of(answer, method)
            assert 400 <= answer.status < 500 or answer.status == 501, (query, answer)
    attacked.healthy()


@pytest.mark.control(CONTROL)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_two_names_of_operations_are_refused(attacked: Attacked, method: str) -> None:
    names = [name for name in SELECTORS if name not in ("versionId", "list-type", "select-type")]
    for first, second in pairwise(names):
        if method == "GET" and {first, second} == {"partNumber", "versionId"}:
            continue
        if {first, second} == {"partNumber", "uploadId"}:
            continue
        answer = ask(attacked, method, f"/{LEDGER}/plain", f"{second}&{first}", b"overwritten")
        code_of(answer, method)
        assert 400 <= answer.status < 500 or answer.status == 501, (first, second, answer)
    attacked.healthy()


@pytest.mark.control(CONTROL)
@pytest.mark.parametrize(
    ("method", "path", "query", "status", "said"),
    [
        ("PUT", "/ledger/parts", "uploadId=X", 405, (NOT_ALLOWED, "PUT", "UPLOAD")),
        ("HEAD", "/ledger/parts", "uploadId=X", 405, ()),
        (
            "PUT",
            "/ledger/parts",
            "partNumber=1",
            400,
            ("This operation does not accept partNumber without uploadId", "partNumber"),
        ),
        ("POST", "/ledger/plain", "", 405, (NOT_ALLOWED, "POST", "OBJECT")),
        ("PATCH", "/ledger/plain", "", 405, (NOT_ALLOWED, "PATCH", "OBJECT")),
        ("POST", "/ledger", "", 405, (NOT_ALLOWED, "POST", "BUCKET")),
        ("PUT", "/", "", 405, (NOT_ALLOWED, "PUT", "SERVICE")),
        (
            "GET",
            "/ledger/plain",
            "versioning&acl",
            400,
            ("Conflicting query string parameters: acl, versioning", "ResourceType", "acl"),
        ),
        (
            "GET",
            "/ledger/plain",
            "uploads",
            400,
            ("Key is not expected for the GET method ?uploads subresource",),
        ),
        (
            "GET",
            "/ledger/plain",
            "versions",
            400,
            ("There is no such thing as the ?versions sub-resource for a key",),
        ),
        (
            "PUT",
            "/ledger/plain",
            "versionId=null",
            400,
            ("This operation does not accept a version-id.", "versionId", "null"),
        ),
        (
            "GET",
            "/ledger/plain",
            "attributes",
            400,
            ("Missing required header for this request: x-amz-object-attributes",),
        ),
        ("PUT", "/ledger/plain", "torrent", 405, (NOT_ALLOWED, "PUT", "TORRENT")),
        ("GET", "/ledger", "list-type=1", 400, ("Invalid value for list-type", "list-type", "1")),
        (
            "DELETE",
            "/ledger/parts",
            "uploadId=a&uploadId=b",
            400,
            ("Invalid value for uploadId", "uploadId", "b"),
        ),
        (
            "PUT",
            "/ledger/plain",
            "acl",
            400,
            (
                "The XML you provided was not well-formed or did not validate against our "
                "published schema",
            ),
        ),
        ("PUT", "/ledger/plain", "retention", 501, ()),
        ("POST", "/ledger/plain", "restore", 501, ()),
    ],
)
def test_s3s_own_words_for_half_a_request(
    attacked: Attacked, method: str, path: str, query: str, status: int, said: tuple[str, ...]
) -> None:
    answer = ask(attacked, method, path, query, b"overwritten" if method == "PUT" else b"")
    assert answer.status == status, answer
    for text in said:
        assert f">{text}<".encode() in answer.body, answer.body
    if status == 405 and path == "/ledger/parts":
        assert answer.headers["allow"] == "DELETE, POST, GET"
    attacked.healthy()


@pytest.mark.control("At 0e393ec the source was left out of sight, or the content was.")
def test_a_copys_headers_belong_to_copies_alone(attacked: Attacked) -> None:
    source = {"x_amz_copy_source": f"{LEDGER}/tags"}
    both = ask(attacked, "PUT", "/ledger/plain", "", b"content", **source)
    assert (both.status, code_of(both, "PUT")) == (400, "InvalidRequest")
    for method, query, headers in (
        ("PUT", "", {"x_amz_copy_source_if_match": '"x"'}),
        ("PUT", "", {"x_amz_copy_source_range": "bytes=0-1"}),
        ("PUT", "tagging", source),
        ("POST", "uploads", source),
        ("DELETE", "", source),
        ("PUT", "uploadId=X", source),
    ):
        answer = ask(attacked, method, "/ledger/plain", query, **headers)
        assert answer.status in (405, 501), answer
        assert code_of(answer, method) in ("MethodNotAllowed", "NotImplemented")
    attacked.healthy()


@pytest.mark.control("At 0e393ec any method and path served them, and of two actions the last.")
def test_an_operation_named_elsewhere_is_asked_for_in_one_place(attacked: Attacked) -> None:
    target = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}
    right = Wire("sagemaker", "sagemaker", "json", "", "POST", "/", "", target, b"{}")
    assert attacked.send(right).status == 200
    for change in ({"method": "GET"}, {"method": "PUT"}, {"path": "/x"}):
        answer = attacked.send(right.with_(**change))
        assert code_of(answer, "POST") == "UnknownOperationException", answer
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"Action=ListRoles&Version=2010-05-08"
    asked = Wire("iam", "iam", "query", "", "POST", "/", "", form, body)
    assert attacked.send(asked).status == 200
    for change in (
        {"body": body + b"&Action=DeleteRole&RoleName=other"},
        {"query": "Action=DeleteRole&RoleName=other"},
        {"method": "DELETE"},
        {"path": "/x"},
    ):
        answer = attacked.send(asked.with_(**change))
        assert code_of(answer, "POST") in ("MalformedInput", "InvalidAction"), answer
    assert attacked.platform.client("iam", as_="root").get_role(RoleName="other")
