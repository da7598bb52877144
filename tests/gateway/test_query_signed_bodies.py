"""Bodies whose Content-Type says that they are forms, as urllib and curl say of any body."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
from botocore.config import Config
from raw_http import send

from cloche.testing.platform import Platform

FORM = "application/x-www-form-urlencoded"


def client(platform: Platform, version: str) -> Any:
    """Return a client that signs links with this version."""
    config = Config(signature_version=version, proxies={})
    return platform.session().client("s3", endpoint_url=platform.address, config=config)


def put(url: str, body: bytes) -> int:
    """Send a body as urllib does, with the Content-Type that urllib gives it."""
    request = urllib.request.Request(url, data=body, method="PUT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        assert request.get_header("Content-type") == FORM
        return int(answer.status)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_put_by_a_signed_link(platform: Platform, version: str) -> None:
    s3, bucket = platform.client("s3"), f"forms-{version}"
    s3.create_bucket(Bucket=bucket)
    place = {"Bucket": bucket, "Key": "k"}
    parameters = {**place, "ContentType": FORM} if version == "s3" else place
    link = client(platform, version).generate_presigned_url("put_object", Params=parameters)
    for body in (b"a=b&c=d", bytes(1 << 20)):
        assert put(link, body) == 200
        assert s3.get_object(**place)["Body"].read() == body


def test_a_bucket_made_by_a_signed_link_lies_where_it_was_to(platform: Platform) -> None:
    s3 = client(platform, "s3v4")
    link = s3.generate_presigned_url("create_bucket", Params={"Bucket": "forms-west"})
    where = "<LocationConstraint>eu-west-1</LocationConstraint>"
    put(link, f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode())
    assert s3.get_bucket_location(Bucket="forms-west")["LocationConstraint"] == "eu-west-1"


def test_unsigned_bodies_are_refused_before_they_are_read(platform: Platform) -> None:
    headers = {"Content-Type": FORM, "Content-Length": str(64 << 20), "Connection": "close"}
    answer = send(platform.address, "PUT", "/forms-s3/k", headers)
    assert (answer.status, answer.xml["Code"]) == (403, "AccessDenied")
    answer = send(platform.address, "POST", "/", headers)
    assert answer.status == 413


def test_a_form_still_names_its_service(platform: Platform) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    answer = send(platform.address, "POST", "/", {"Content-Type": FORM}, body)
    assert (answer.status, answer.xml["Code"]) == (403, "MissingAuthenticationToken")
