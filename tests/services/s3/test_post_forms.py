"""Forms whose policy somebody signed (generate_presigned_post), sent as browsers and tools do."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from s3_server import KEY, OTHER_KEY, Served

Fields = dict[str, str]


def post(url: str, fields: Mapping[str, str], data: Any = b"hello", name: str = "f.txt") -> Any:
    """Send a form as `requests` does, the file at its end."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(
            url, data=fields, files={"file": (name, data)}, timeout=20, allow_redirects=False
        )


def refusal(answer: Any) -> tuple[int, str, str]:
    """Return status, code and text of a refusal."""
    found = ET.fromstring(answer.text)
    return answer.status_code, found.findtext("Code") or "", found.findtext("Message") or ""


def denied(why: str) -> tuple[int, str, str]:
    return 403, "AccessDenied", f"Invalid according to Policy: {why}"


def signed(document: Any, fields: Mapping[str, str]) -> Fields:
    """Return the fields of a form with this policy, signed as SigV2 does it."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    policy = base64.b64encode(text)
    signature = hmac.digest(KEY.secret_access_key.encode(), policy, "sha1")
    return {
        **fields,
        "AWSAccessKeyId": KEY.access_key_id,
        "policy": policy.decode(),
        "signature": base64.b64encode(signature).decode(),
    }


def until(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_form_puts_an_object(s3: Any, served: Served, bucket: str, version: str) -> None:
    signer = served.client(signature_version=version)
    form = signer.generate_presigned_post(bucket, "up/${filename}", ExpiresIn=60)
    answer = post(form["url"], form["fields"])
    assert (answer.status_code, answer.text) == (204, "")
    assert answer.headers["location"] == f"http://127.0.0.1:{served.port}/{bucket}/up%2Ff.txt"
    got = s3.get_object(Bucket=bucket, Key="up/f.txt")
    assert got["Body"].read() == b"hello"
    assert got["ContentType"] == "binary/octet-stream"
    assert answer.headers["etag"] == got["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 5 << 20])
def test_files_of_any_size_and_content(s3: Any, bucket: str, size: int) -> None:
    form = s3.generate_presigned_post(bucket, "k")
    data = (b"\r\n--\r\n-\r\r\n\n--boundary--" * (size // 20 + 1))[:size]
    assert post(form["url"], form["fields"], data).status_code == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_fields_become_what_is_kept_with_the_object(s3: Any, bucket: str) -> None:
    tags = "<Tagging><TagSet><Tag><Key>a/b</Key><Value>1 2</Value></Tag></TagSet></Tagging>"
    fields = {
        "acl": "private",
        "Content-Type": "text/plain",
        "Cache-Control": "no-cache",
        "x-amz-meta-One": "1",
        "x-amz-server-side-encryption": "AES256",
        "tagging": tags,
    }
    conditions = [{name: value} for name, value in fields.items()]
    form = s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=conditions)
    assert post(form["url"], form["fields"]).status_code == 204
    got = s3.head_object(Bucket=bucket, Key="k")
    assert (got["ContentType"], got["CacheControl"]) == ("text/plain", "no-cache")
    assert (got["Metadata"], got["ServerSideEncryption"]) == ({"one": "1"}, "AES256")
    tagged = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert tagged == [{"Key": "a/b", "Value": "1 2"}]


@pytest.mark.parametrize(
    ("asked", "status"), [("200", 200), ("201", 201), ("204", 204), ("5", 204)]
)
def test_the_status_that_the_form_asks_for(s3: Any, bucket: str, asked: str, status: int) -> None:
    fields = {"success_action_status": asked}
    form = s3.generate_presigned_post(bucket, "a/b", Fields=fields, Conditions=[fields])
    answer = post(form["url"], form["fields"])
    assert answer.status_code == status
    if status != 201:
        assert answer.text == ""
        return
    found = {element.tag: element.text for element in ET.fromstring(answer.text)}
    etag = '"5d41402abc4b2a76b9719d911017c592"'
    location = answer.headers["location"]
    assert location.endswith(f"/{bucket}/a%2Fb")
    assert found == {"Location": location, "Bucket": bucket, "Key": "a/b", "ETag": etag}


@pytest.mark.parametrize("field", ["success_action_redirect", "redirect"])
def test_the_page_that_comes_next(s3: Any, bucket: str, field: str) -> None:
    fields = {field: "http://example.com/done?x=1"}
    form = s3.generate_presigned_post(bucket, "a b", Fields=fields, Conditions=[fields])
    answer = post(form["url"], form["fields"])
    assert answer.status_code == 303
    where = urlsplit(answer.headers["location"])
    assert (where.scheme, where.netloc, where.path) == ("http", "example.com", "/done")
    etag = '"5d41402abc4b2a76b9719d911017c592"'
    assert parse_qs(where.query) == {"x": ["1"], "bucket": [bucket], "key": ["a b"], "etag": [etag]}


@pytest.mark.parametrize(
    "wanted", ["nowhere", "javascript:alert(1)", "http://[", "http://a/\r\nx: y"]
)
def test_a_next_page_that_is_none_is_ignored(s3: Any, bucket: str, wanted: str) -> None:
    fields = {"success_action_redirect": wanted}
    form = s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=[fields])
    answer = post(form["url"], form["fields"])
    assert answer.status_code == 204 and "x" not in answer.headers


CONDITIONS = [
    ({"acl": "private"}, {"acl": "public-read"}, '["eq", "$acl", "private"]'),
    (["eq", "$x-amz-meta-a", "1"], {"x-amz-meta-a": "2"}, '["eq", "$x-amz-meta-a", "1"]'),
    (["eq", "$x-amz-meta-a", "1"], {}, '["eq", "$x-amz-meta-a", "1"]'),
    (
        ["starts-with", "$Content-Type", "image/"],
        {"Content-Type": "text/html"},
        '["starts-with", "$Content-Type", "image/"]',
    ),
    (
        ["starts-with", "$Content-Type", "image/"],
        {"Content-Type": "image/png,text/html"},
        '["starts-with", "$Content-Type", "image/"]',
    ),
]


@pytest.mark.parametrize(("condition", "fields", "shown"), CONDITIONS)
def test_a_condition_that_fails(
    s3: Any, bucket: str, condition: Any, fields: Fields, shown: str
) -> None:
    form = s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=[condition])
    answer = post(form["url"], form["fields"])
    assert refusal(answer) == denied(f"Policy Condition failed: {shown}")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_what_a_condition_lets_through(s3: Any, bucket: str) -> None:
    fields = {"Content-Type": "image/png, image/gif", "x-ignore-me": "1"}
    conditions = [["starts-with", "$content-type", "image/"], ["starts-with", "$x-amz-meta-b", ""]]
    form = s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=conditions)
    assert post(form["url"], form["fields"]).status_code == 204


def change(**fields: str) -> Callable[[Fields], Fields]:
    return lambda form: {**form, **{name.replace("_", "-"): text for name, text in fields.items()}}


def drop(name: str) -> Callable[[Fields], Fields]:
    return lambda form: {key: value for key, value in form.items() if key != name}


MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "key and signing method."
)
ORDER = "  If it is specified, please check the order of the fields."
TAMPERED = {
    "key": (change(key="other"), denied('Policy Condition failed: ["eq", "$key", "k"]')),
    "metadata": (change(x_amz_meta_a="1"), denied("Extra input fields: x-amz-meta-a")),
    "type": (change(Content_Type="text/html"), denied("Extra input fields: content-type")),
    "any": (change(foo="1"), denied("Extra input fields: foo")),
    "signature": (change(x_amz_signature="0" * 64), (403, "SignatureDoesNotMatch", MISMATCH)),
    "policy": (
        change(policy=base64.b64encode(b'{"expiration":"2099-01-01T00:00:00Z"}').decode()),
        (403, "SignatureDoesNotMatch", MISMATCH),
    ),
    "another's key": (
        lambda form: {
            **form,
            "x-amz-credential": form["x-amz-credential"].replace(
                KEY.access_key_id, OTHER_KEY.access_key_id
            ),
        },
        (403, "SignatureDoesNotMatch", MISMATCH),
    ),
    "unknown key": (
        lambda form: {**form, "x-amz-credential": "AKIAX" + form["x-amz-credential"]},
        (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
    ),
    "another service's": (
        lambda form: {
            **form,
            "x-amz-credential": form["x-amz-credential"].replace("/s3/", "/iam/"),
        },
        (
            400,
            "AuthorizationQueryParametersError",
            'Error parsing the X-Amz-Credential parameter; incorrect service "iam". This endpoint '
            'belongs to "s3".',
        ),
    ),
    "no policy": (drop("policy"), (403, "AccessDenied", "Access Denied")),
    "no signature": (
        drop("x-amz-signature"),
        (
            400,
            "InvalidArgument",
            f"Bucket POST must contain a field named 'X-Amz-Signature'.{ORDER}",
        ),
    ),
    "no key": (
        drop("key"),
        (400, "InvalidArgument", f"Bucket POST must contain a field named 'key'.{ORDER}"),
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_form_that_was_changed(s3: Any, served: Served, bucket: str, name: str) -> None:
    edit, expected = TAMPERED[name]
    signer = served.client(signature_version="s3v4")
    form = signer.generate_presigned_post(bucket, "k")
    assert refusal(post(form["url"], edit(form["fields"]))) == expected
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert post(form["url"], form["fields"]).status_code == 204  # the form as it was made


def test_a_form_for_another_bucket(s3: Any, bucket: str) -> None:
    s3.create_bucket(Bucket=f"{bucket}-2")
    form = s3.generate_presigned_post(bucket, "k")
    answer = post(form["url"] + "-2", form["fields"])
    shown = f'["eq", "$bucket", "{bucket}"]'
    assert refusal(answer) == denied(f"Policy Condition failed: {shown}")
    # Nor does a field of that name change where the object goes.
    answer = post(form["url"] + "-2", {**form["fields"], "bucket": bucket})
    assert refusal(answer) == denied(f"Policy Condition failed: {shown}")


def test_a_policy_says_for_which_bucket_it_is(s3: Any, bucket: str) -> None:
    url = s3.generate_presigned_post(bucket, "k")["url"]
    policy = {"expiration": until(hours=1), "conditions": [{"key": "k"}]}
    assert refusal(post(url, signed(policy, {"key": "k"}))) == denied("Extra input fields: bucket")


def test_a_policy_expires(s3: Any, bucket: str) -> None:
    url = s3.generate_presigned_post(bucket, "k")["url"]
    conditions = [{"bucket": bucket}, {"key": "k"}]
    policy = {"expiration": until(seconds=-1), "conditions": conditions}
    assert refusal(post(url, signed(policy, {"key": "k"}))) == denied("Policy expired.")
    policy["expiration"] = until(hours=1)
    assert post(url, signed(policy, {"key": "k"})).status_code == 204


NOT_ONE = "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (b"no JSON", "Invalid JSON."),
        (b"[" * 9000, "Invalid JSON."),
        (b"[]", "Invalid JSON."),
        ({"conditions": []}, "Policy missing expiration."),
        ({"expiration": "2099-01-01T00:00:00Z"}, "Policy missing conditions."),
        ({"expiration": "soon", "conditions": []}, "Invalid 'expiration' value: 'soon'"),
        ({"expiration": "2099-01-01T00:00:00Z", "conditions": [{}]}, NOT_ONE),
        (
            {"expiration": "2099-01-01T00:00:00Z", "conditions": [{"key": 1}]},
            "Invalid Simple-Condition: value must be a string.",
        ),
        (
            {"expiration": "2099-01-01T00:00:00Z", "conditions": [["is", "$key", "k"]]},
            "Invalid Condition.",
        ),
    ],
)
def test_policies_that_are_none(s3: Any, bucket: str, policy: Any, text: str) -> None:
    url = s3.generate_presigned_post(bucket, "k")["url"]
    answer = post(url, signed(policy, {"key": "k"}))
    assert refusal(answer) == (400, "InvalidPolicyDocument", f"Invalid Policy: {text}")


def test_the_file_is_as_long_as_the_policy_allows(s3: Any, served: Served, bucket: str) -> None:
    form = s3.generate_presigned_post(
        bucket,
        "k",
        Conditions=[["content-length-range", 2, 3 << 20], ["content-length-range", 0, 9999999]],
    )
    before = served.blobs()
    large = post(form["url"], form["fields"], bytes((3 << 20) + 1))
    text = "Your proposed upload exceeds the maximum allowed size"
    assert refusal(large) == (400, "EntityTooLarge", text)
    assert ET.fromstring(large.text).findtext("MaxSizeAllowed") == str(3 << 20)
    small = post(form["url"], form["fields"], b"x")
    text = "Your proposed upload is smaller than the minimum allowed size"
    assert refusal(small) == (400, "EntityTooSmall", text)
    assert served.blobs() == before
    for size in (2, 3 << 20):
        assert post(form["url"], form["fields"], bytes(size)).status_code == 204


def raw(served: Served, bucket: str, body: bytes, boundary: str = "B") -> tuple[int, str]:
    """Send a form's bytes as they are; return the answer's status and error code."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", f"/{bucket}", body, headers)
        answer = connection.getresponse()
        data = answer.read()
        code = ET.fromstring(data).findtext("Code") or "" if data else ""
        return answer.status, code
    finally:
        connection.close()


def written(fields: Mapping[str, str], tail: bytes) -> bytes:
    """Return the bytes of a form's fields, then `tail`."""
    return (
        b"".join(
            f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        + tail
    )


FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello'


def test_forms_that_end_early_or_are_none(s3: Any, served: Served, bucket: str) -> None:
    fields = s3.generate_presigned_post(bucket, "k")["fields"]
    before = served.blobs()
    for tail in (FILE, FILE + b"\r\n--", FILE + b"\r\n--B", FILE + b"\r\n--Bxx", b"--Bxx" + FILE):
        assert raw(served, bucket, written(fields, tail)) == (400, "MalformedPOSTRequest"), tail
    assert raw(served, bucket, written(fields, b"--B--\r\n")) == (400, "InvalidArgument")
    assert raw(served, bucket, b"") == (400, "MalformedPOSTRequest")
    twice = {**fields, "KEY": "other"}
    assert raw(served, bucket, written(twice, FILE + b"\r\n--B--")) == (400, "InvalidArgument")
    nameless = b"--B\r\n\r\nx\r\n" + FILE + b"\r\n--B--"
    assert raw(served, bucket, written(fields, nameless)) == (400, "MalformedPOSTRequest")
    assert served.blobs() == before
    assert raw(served, bucket, written(fields, FILE + b"\r\n--B--")) == (204, "")


def test_what_stands_before_the_file_is_bounded(s3: Any, served: Served, bucket: str) -> None:
    fields = s3.generate_presigned_post(bucket, "k")["fields"]
    end = FILE + b"\r\n--B--"
    code = "MaxPostPreDataLengthExceededError"
    long = {**fields, "x-ignore-a": "x" * 20_480}
    assert raw(served, bucket, written(long, end)) == (400, code)
    many = {**fields, **{f"x-ignore-{n}": "x" for n in range(500)}}
    assert raw(served, bucket, written(many, end)) == (400, code)
    fits = {**fields, "x-ignore-a": "x" * 10_000}
    assert raw(served, bucket, written(fits, end)) == (204, "")


def test_what_stands_behind_the_file_is_ignored(s3: Any, served: Served, bucket: str) -> None:
    fields = s3.generate_presigned_post(bucket, "k")["fields"]
    behind = b'\r\n--B\r\nContent-Disposition: form-data; name="key"\r\n\r\nother\r\n--B--\r\n'
    assert raw(served, bucket, written(fields, FILE + behind)) == (204, "")
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_a_field_makes_no_header_of_its_own(s3: Any, served: Served, bucket: str) -> None:
    """A field may hold a line end, which a header can't: in its value, or in its name."""
    for name, value in (("x-amz-meta-a", "1\r\nx-evil: 1"), ("x-amz-meta-a\nx-evil", "1")):
        fields = signed(
            {
                "expiration": until(hours=1),
                "conditions": [{"bucket": bucket}, {"key": "k"}, {name: value}],
            },
            {"key": "k", name: value},
        )
        answer = raw(served, bucket, written(fields, FILE + b"\r\n--B--"))
        assert answer == (400, "InvalidArgument")


@pytest.mark.parametrize("name", ["C:\\dir\\f.txt", "/etc/f.txt", "../f.txt", "f.txt"])
def test_the_file_has_its_last_name(s3: Any, bucket: str, name: str) -> None:
    form = s3.generate_presigned_post(bucket, "${filename}")
    assert post(form["url"], form["fields"], name=name).status_code == 204
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["f.txt"]


def test_a_name_that_is_not_ascii(s3: Any, bucket: str) -> None:
    form = s3.generate_presigned_post(bucket, "up/${filename}")
    assert post(form["url"], form["fields"], name="größe 日本.txt").status_code == 204
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["up/größe 日本.txt"]


def test_another_account_s_form(s3: Any, stranger: Any, bucket: str) -> None:
    form = stranger.generate_presigned_post(bucket, "k")
    assert refusal(post(form["url"], form["fields"])) == (403, "AccessDenied", "Access Denied")
    form = s3.generate_presigned_post("is-not-there", "k")
    expected = (404, "NoSuchBucket", "The specified bucket does not exist")
    assert refusal(post(form["url"], form["fields"])) == expected
