"""Requests that nobody signed: asked here where the bucket is here, else passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from cloche.testing.platform import Platform, start
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        made.buckets = {"both": Bucket(objects={"a": b"theirs"})}
        yield made


@pytest.fixture(scope="module")
def platform(real: StandInS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home"), s3_address=real.address) as running:
        yield running


def get(platform: Platform, url: str, **options: Any) -> requests.Response:
    """Return what a client under `cloche run` gets."""
    variables = platform.environment()
    proxies = {"https": variables["HTTPS_PROXY"]}
    verify = variables["REQUESTS_CA_BUNDLE"]
    return requests.get(url, proxies=proxies, verify=verify, timeout=30, **options)


def opened(s3: Any, bucket: str, **condition: Any) -> None:
    """Let everybody read a bucket's objects, under a condition."""
    off = {"BlockPublicPolicy": False, "RestrictPublicBuckets": False}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=off)
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": condition,
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [statement]}))


def test_a_bucket_that_is_here_is_asked_here_and_another_outside(
    platform: Platform, real: StandInS3
) -> None:
    s3, url = platform.client("s3", as_="root"), "https://both.s3.amazonaws.com/a"
    assert get(platform, url).content == b"theirs" and len(real.seen) == 1
    s3.create_bucket(Bucket="both")
    s3.put_object(Bucket="both", Key="a", Body=b"ours")
    assert get(platform, url).status_code == 403
    assert get(platform, "https://s3.amazonaws.com/bo%74h/a").status_code == 403
    opened(s3, "both")
    assert get(platform, url).content == b"ours"
    assert get(platform, "https://s3.amazonaws.com/bo%74h/a").content == b"ours"
    assert get(platform, f"{platform.address}/both/a").content == b"ours"
    assert len(real.seen) == 1
    s3.delete_object(Bucket="both", Key="a")
    s3.delete_bucket(Bucket="both")
    assert get(platform, url).content == b"theirs" and len(real.seen) == 2


@pytest.mark.parametrize(
    ("condition", "https", "http"),
    [
        ({"Bool": {"aws:SecureTransport": "true"}}, 200, 403),
        ({"StringEquals": {"s3:TlsVersion": "1.3"}}, 200, 403),
        ({"StringEquals": {"s3:TlsVersion": "1.2"}}, 403, 403),
        ({"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}, 200, 200),
        ({"StringEquals": {"s3:authType": "REST-HEADER"}}, 403, 403),
        ({}, 200, 200),
    ],
)
def test_conditions_of_the_connection(
    platform: Platform, condition: dict[str, Any], https: int, http: int
) -> None:
    s3 = platform.client("s3", as_="root", region="eu-west-1")
    if "conditions" not in [each["Name"] for each in s3.list_buckets()["Buckets"]]:
        there = {"LocationConstraint": "eu-west-1"}
        s3.create_bucket(Bucket="conditions", CreateBucketConfiguration=there)
        s3.put_object(Bucket="conditions", Key="a", Body=b"x")
    opened(s3, "conditions", **condition)
    assert get(platform, "https://conditions.s3.amazonaws.com/a").status_code == https
    assert get(platform, f"{platform.address}/conditions/a").status_code == http
