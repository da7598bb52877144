"""Input that lies in public buckets of the real S3, for which a server on loopback stands in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from serving_client import Serving
from training_client import Trainer, channel, source, wait_for

from cloche.testing.platform import Platform, start
from cloche.testing.stand_in_s3 import Bucket, StandInS3, stand_in

SCRIPT = """
import os
for folder, _, names in os.walk(os.environ["SM_CHANNEL_TRAINING"]):
    for name in sorted(names):
        path = os.path.join(folder, name)
        print("input:", os.path.relpath(path, os.environ["SM_CHANNEL_TRAINING"]), open(path).read())
open(os.path.join(os.environ["SM_CHANNEL_TRAINING"], "mine"), "w").write("a copy is mine")
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInS3]:
    with stand_in(tmp_path_factory.mktemp("real")) as made:
        made.buckets = {
            "sagemaker-sample-files": Bucket(
                "us-west-2",
                objects={
                    "data/a 1.csv": b"A",
                    "data/sub/b.csv": b"B",
                    "other": b"no",
                    "manifest": json.dumps(
                        [{"prefix": "s3://sagemaker-sample-files/data/"}, "sub/b.csv"]
                    ).encode(),
                    "code/sourcedir.tar.gz": source({"train.py": SCRIPT}),
                    "deep/../../up": b"evil",
                },
            ),
            "private-one": Bucket(public=False, objects={"a": b"secret"}),
        }
        yield made


@pytest.fixture(scope="module")
def platform(real: StandInS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("home")
    with start(home, s3_address=real.address, public_buckets=("private-one",)) as running:
        yield running


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


def inputs(uri: str, kind: str = "S3Prefix") -> dict[str, Any]:
    return {"InputDataConfig": [channel("training", uri, kind)]}


def test_a_channel_is_read_outside_and_the_log_says_so(trainer: Trainer, real: StandInS3) -> None:
    real.seen.clear()
    isolated = inputs("s3://sagemaker-sample-files/data/") | {"EnableNetworkIsolation": True}
    job = trainer.train(SCRIPT, **isolated)
    assert job["TrainingJobStatus"] == "Completed", job
    said = trainer.log(job["TrainingJobName"])
    assert "input: a 1.csv A" in said and "input: sub/b.csv B" in said
    assert (
        "The channel training, s3://sagemaker-sample-files/data/, was read from the real S3 "
        "without a key: 2 objects, 2 bytes"
    ) in said
    assert not any("authorization" in one.headers for one in real.seen)


READS = """
import boto3, os, urllib.request
def tried(name, read):
    try:
        print(name, read())
    except Exception as error:
        print(name, "no:", type(error).__name__)
url = "https://sagemaker-sample-files.s3.us-west-2.amazonaws.com/data/sub/b.csv"
tried("anonymous", lambda: urllib.request.urlopen(url, timeout=20).read())
def signed():
    s3 = boto3.client("s3", region_name="us-east-1")
    return s3.get_object(Bucket="sagemaker-sample-files", Key="other")["Body"].read()
tried("signed", signed)
print("trusts", len({os.environ[n] for n in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")}))
"""


def test_a_jobs_own_reads_arrive(trainer: Trainer) -> None:
    said = trainer.completed(READS).splitlines()
    assert "anonymous b'B'" in said and "signed b'no'" in said and "trusts 1" in said


def test_an_isolated_jobs_own_reads_do_not(trainer: Trainer, real: StandInS3) -> None:
    real.seen.clear()
    said = trainer.completed(READS, EnableNetworkIsolation=True)
    assert "anonymous no:" in said and "signed no:" in said
    assert real.seen == []


def test_a_model_is_read_outside(platform: Platform, real: StandInS3) -> None:
    code = "def model_fn(d):\n    return d\ndef transform_fn(m, b, c, a):\n    return '7'\n"
    files = real.buckets["sagemaker-sample-files"].objects
    files["models/m.tar.gz"] = source({"code/inference.py": code})
    serving = Serving(platform)
    uri = "s3://sagemaker-sample-files/models/m.tar.gz"
    serving.create_model("outside", ModelDataUrl=uri)
    assert serving.deploy("outside", "outside")["EndpointStatus"] == "InService"
    assert serving.invoke("outside", [1]) == 7
    serving.create_model("lacking", ModelDataUrl=f"{uri}.not")
    failed = serving.deploy("lacking", "lacking")
    assert failed["FailureReason"].endswith(f"(No such object: {uri}.not)")


def test_a_manifest_is_read_outside(trainer: Trainer) -> None:
    uri = "s3://sagemaker-sample-files/manifest"
    assert "input: sub/b.csv B" in trainer.completed(SCRIPT, **inputs(uri, "ManifestFile"))


@pytest.mark.parametrize(
    "uri, reason",
    [
        (
            "s3://sagemaker-sample-files/nothing/",
            "No S3 objects found under S3 URL s3://sagemaker-sample-files/nothing/",
        ),
        ("s3://private-one/", "S3 refuses to list s3://private-one (403)"),
        ("s3://sagemaker-sample-files/deep/", "The key deep/../../up is not a path below a folder"),
    ],
)
def test_what_can_not_be_read_is_the_reason(trainer: Trainer, uri: str, reason: str) -> None:
    job = trainer.train(SCRIPT, **inputs(uri))
    assert job["FailureReason"] == f"ClientError: Data download failed:{reason}"


def test_a_bucket_that_is_not_known_is_refused_at_once(trainer: Trainer, real: StandInS3) -> None:
    real.seen.clear()
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        trainer.start(SCRIPT, **inputs("s3://sagemaker-sample-file/data/"))
    assert real.seen == []


def test_a_job_is_stopped_while_it_downloads(trainer: Trainer, real: StandInS3) -> None:
    def dribble(handler: Any) -> bool:
        if not handler.path.startswith("/sagemaker-sample-files/data/a"):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        handler.wfile.flush()
        handler.connection.recv(1)  # until it is broken off
        return True

    real.instead = dribble
    try:
        name = trainer.start(SCRIPT, **inputs("s3://sagemaker-sample-files/data/"))
        wait_for(lambda: any("/data/a" in one.target for one in real.seen))
        trainer.sagemaker.stop_training_job(TrainingJobName=name)
        assert trainer.ended(name)["TrainingJobStatus"] == "Stopped"
    finally:
        real.instead = None


def test_more_than_the_volume_holds_is_refused(trainer: Trainer, real: StandInS3) -> None:
    def inflated(handler: Any) -> bool:
        if "list-type" not in handler.path:
            return False
        text = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Contents>'
            f"<Key>data/huge</Key><Size>{2 << 30}</Size><ETag>x</ETag></Contents>"
            "</ListBucketResult>"
        )
        handler.answer(200, text.encode(), {})
        return True

    real.instead = inflated
    try:
        job = trainer.train(SCRIPT, **inputs("s3://sagemaker-sample-files/data/"))
    finally:
        real.instead = None
    assert job["FailureReason"] == (
        "ClientError: Data download failed:Insufficient disk space. The channel training, "
        "s3://sagemaker-sample-files/data/, and what was read before it have 2,147,483,648 bytes; "
        "VolumeSizeInGB allows 1 GiB"
    )
