"""Reads of the real S3, by the clients that users have, against a stand-in on loopback."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from cloche.testing.platform import Platform, start
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in

ONCE = Config(proxies={}, retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        digits = b"".join(bytes([n % 251]) for n in range(3_000_000))
        made.buckets = {
            "ossci-datasets": Bucket(objects={"mnist/train 1.gz": b"digits", "big": digits}),
            "west": Bucket("us-west-2", objects={"a": b"far"}),
            "private": Bucket(public=False, objects={"a": b"secret"}),
            "sagemaker-sample-files": Bucket(
                "us-west-2", objects={f"datasets/{n}.csv": b"1,2\n" * n for n in range(5)}
            ),
            "my-added": Bucket(objects={"a": b"added"}),
            "misttyped": Bucket(objects={"a": b"of a stranger"}),
        }
        yield made


@pytest.fixture(scope="module")
def platform(real: StandInS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("home")
    with start(home, s3_address=real.address, public_buckets=("my-added",)) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_seen(real: StandInS3) -> None:
    real.seen.clear()


@pytest.fixture
def get(platform: Platform) -> Any:
    """Return a GET as `requests` makes it under `cloche run`."""
    variables = platform.environment()

    def ask(url: str, method: str = "GET", **options: Any) -> requests.Response:
        return requests.request(
            method,
            url,
            proxies={"https": variables["HTTPS_PROXY"]},
            verify=variables["REQUESTS_CA_BUNDLE"],
            timeout=30,
            **options,
        )

    return ask


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com/ossci-datasets/mnist/train%201.gz",
        "https://ossci-datasets.s3.amazonaws.com/mnist/train%201.gz",
        "https://s3.us-east-1.amazonaws.com/ossci-datasets/mnist/train%201.gz",
        "https://s3-us-east-1.amazonaws.com/ossci-datasets/mnist/train%201.gz",
        "https://ossci-datasets.s3.dualstack.us-east-1.amazonaws.com/mnist/train%201.gz",
    ],
)
def test_an_unsigned_read_arrives_whatever_the_form(get: Any, real: StandInS3, url: str) -> None:
    answer = get(url)
    assert (answer.status_code, answer.content) == (200, b"digits")
    assert answer.headers["x-amz-request-id"] == "REAL"
    assert real.seen[-1].target == "/ossci-datasets/mnist/train%201.gz"


def test_ranges_conditions_and_heads(get: Any) -> None:
    url = "https://ossci-datasets.s3.amazonaws.com/big"
    part = get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["Content-Range"] == "bytes 10-19/3000000"
    head = get(url, "HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "3000000")
    same = get(url, headers={"If-None-Match": head.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert len(get(url).content) == 3_000_000


def test_a_bucket_of_another_region_is_followed_there(get: Any, real: StandInS3) -> None:
    assert get("https://west.s3.amazonaws.com/a").content == b"far"
    assert [one.host for one in real.seen] == ["s3.amazonaws.com", "s3.us-west-2.amazonaws.com"]
    assert get("https://west.s3.amazonaws.com/a").content == b"far"
    assert real.seen[-1].host == "s3.us-west-2.amazonaws.com" and len(real.seen) == 3


def test_refusals_of_the_real_s3_are_its_own(get: Any) -> None:
    missing = get("https://s3.amazonaws.com/no-such-bucket-there/a")
    assert missing.status_code == 404 and "of the real S3" in missing.text
    assert get("https://s3.amazonaws.com/private/a").status_code == 403


def test_an_unsigned_sdk_lists(platform: Platform) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=platform.address,
        region_name="us-east-1",
        config=ONCE.merge(Config(signature_version=UNSIGNED)),
    )
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="sagemaker-sample-files", Prefix="datasets/", PaginationConfig={"PageSize": 2}
    )
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    assert keys == [f"datasets/{n}.csv" for n in range(5)]


def test_our_keys_read_known_buckets_without_their_signature(
    platform: Platform, real: StandInS3, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "cloche.gateway.passing")
    s3 = platform.client("s3")
    s3.download_file("sagemaker-sample-files", "datasets/3.csv", str(tmp_path / "3.csv"))
    assert (tmp_path / "3.csv").read_bytes() == b"1,2\n" * 3
    assert s3.get_object(Bucket="my-added", Key="a")["Body"].read() == b"added"
    assert s3.list_objects_v2(Bucket="my-added", Prefix="a")["KeyCount"] == 1
    assert s3.head_bucket(Bucket="my-added")["ResponseMetadata"]["HTTPStatusCode"] == 200
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "my-added", "Key": "a"})
    assert requests.get(url, timeout=30).content == b"added"
    for one in real.seen:
        assert not {"authorization", "x-amz-security-token", "x-amz-date"} & one.headers.keys()
        assert "X-Amz" not in one.target and "ASIA" not in one.target
    said = "reads of s3://my-added by a client go to the real S3, without the signature"
    assert [r.message for r in caplog.records].count(said) == 1


def test_a_name_that_is_not_known_never_leaves(platform: Platform, real: StandInS3) -> None:
    for name in ("misttyped", "sagemaker-sample-data-us-eats-1", "sagemaker-sample-files2"):
        with pytest.raises(ClientError) as refused:
            platform.client("s3").get_object(Bucket=name, Key="a")
        assert refused.value.response["Error"]["Code"] == "NoSuchBucket"
    assert real.seen == []


def test_a_copy_from_a_public_bucket_says_what_to_do(platform: Platform, real: StandInS3) -> None:
    s3 = platform.client("s3")
    s3.create_bucket(Bucket="mine")
    with pytest.raises(ClientError) as refused:
        s3.copy_object(Bucket="mine", Key="a", CopySource="sagemaker-sample-files/datasets/1.csv")
    assert refused.value.response["Error"]["Message"] == (
        "The specified bucket does not exist. Cloche does not have sagemaker-sample-files, and "
        "does not copy from the real S3: download the object, then upload it."
    )
    assert real.seen == []


def test_writes_and_other_operations_stay(platform: Platform, real: StandInS3) -> None:
    s3 = platform.client("s3")
    for call in (
        lambda: s3.put_object(Bucket="my-added", Key="a", Body=b""),
        lambda: s3.delete_object(Bucket="my-added", Key="a"),
        lambda: s3.get_bucket_tagging(Bucket="my-added"),
    ):
        with pytest.raises(ClientError, match="NoSuchBucket"):
            call()
    for method in ("PUT", "POST", "DELETE"):
        sent = requests.request(method, f"{platform.address}/my-added/a", timeout=30)
        assert sent.status_code == 403
    assert real.seen == []


def test_a_bucket_that_is_here_is_read_here(platform: Platform, real: StandInS3, get: Any) -> None:
    s3 = platform.client("s3")
    s3.create_bucket(Bucket="sevir")
    s3.put_object(Bucket="sevir", Key="a", Body=b"ours")
    assert s3.get_object(Bucket="sevir", Key="a")["Body"].read() == b"ours"
    assert get("https://sevir.s3.amazonaws.com/a").status_code == 403
    assert real.seen == []


def foreign(platform: Platform, endpoint: str | None = None, **more: str) -> Any:
    variables = platform.environment()
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        verify=variables["AWS_CA_BUNDLE"],
        config=Config(
            proxies={"https": variables["HTTPS_PROXY"]}, retries={"total_max_attempts": 1}
        ),
        **more,
    )


def test_foreign_keys_are_refused_and_told_what_passes_them(
    platform: Platform, real: StandInS3
) -> None:
    with pytest.raises(ClientError) as refused:
        foreign(platform).get_object(Bucket="private", Key="a")
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"
    assert refused.value.response["Error"]["Message"] == (
        "The AWS Access Key Id you provided does not exist in our records. Cloche did not issue "
        "it. `cloche up --pass-foreign-keys` passes reads on to the real S3 that keys of other "
        "accounts signed."
    )
    assert real.seen == []


def test_foreign_keys_pass_as_they_signed_where_that_is_asked_for(
    real: StandInS3, tmp_path: Path
) -> None:
    with start(tmp_path, s3_address=real.address, pass_foreign_keys=True) as platform:
        s3 = foreign(platform, aws_session_token="a token of theirs")
        assert s3.get_object(Bucket="private", Key="a")["Body"].read() == b"secret"
        sent = real.seen[-1]
        assert sent.host == "private.s3.amazonaws.com" and sent.target.startswith("/a")
        assert "AKIAIOSFODNN7EXAMPLE" in sent.headers["authorization"]
        assert sent.headers["x-amz-security-token"] == "a token of theirs"
        real.seen.clear()
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            s3.put_object(Bucket="private", Key="b", Body=b"")
        ours = platform.environment()["AWS_SESSION_TOKEN"]
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            foreign(platform, aws_session_token=ours).get_object(Bucket="private", Key="a")
        with pytest.raises(ClientError, match=r"its signature is for the host 127\.0\.0\.1:"):
            foreign(platform, platform.address).get_object(Bucket="private", Key="a")
        assert real.seen == []


def test_clients_of_all_kinds_trust_what_they_are_told(platform: Platform, tmp_path: Path) -> None:
    variables = platform.environment()
    url = "https://ossci-datasets.s3.amazonaws.com/mnist/train%201.gz"
    names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE")
    named = {name: variables[name] for name in names} | {"PATH": "/usr/bin:/bin"}
    for code in (
        f"import urllib.request as u; print(u.urlopen({url!r}).read())",
        f"import requests as r; print(r.get({url!r}).content)",
    ):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=named,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.stdout == "b'digits'\n", run.stderr
    del (
        named["SSL_CERT_FILE"],
        named["CURL_CA_BUNDLE"],
        named["REQUESTS_CA_BUNDLE"],
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=named,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "CERTIFICATE_VERIFY_FAILED" in run.stderr  # the control


def test_nobody_there_is_an_answer_that_says_so(tmp_path: Path) -> None:
    with start(tmp_path) as platform:
        sent = requests.get(f"{platform.address}/ossci-datasets/a", timeout=30)
        assert sent.status_code == 503
        assert (
            "Cloche has no bucket ossci-datasets, and the real S3 can&apos;t be read: "
            "s3.amazonaws.com can&apos;t be reached: [Errno 111] Connection refused"
        ) in sent.text.replace("'", "&apos;")
