"""Training jobs, end to end: boto3 -> gateway -> loop -> sandbox -> S3, logs, metrics."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from training_client import BUCKET, Trainer, channel, wait_for

from cloche.testing.platform import Platform, free_port, start


@pytest.fixture(scope="module")
def trainer(platform: Platform) -> Trainer:
    return Trainer(platform)


LITERAL = """
import json, os, sys
base = '/opt/ml'
print('input', sorted(os.listdir(base + '/input/data/training')))
print('config', sorted(os.listdir(base + '/input/config')))
with open(base + '/input/config/hyperparameters.json') as f:
    print('epochs', json.load(f)['epochs'])
open(base + '/model/model.pth', 'w').write('weights')
open(base + '/output/data/curve.csv', 'w').write('1,2')
for loss in (0.5, 0.25):
    print('Testing Loss: %s' % loss)
"""


def test_script_with_literal_paths(trainer: Trainer) -> None:
    metrics = [{"Name": "loss", "Regex": "Testing Loss: ([0-9.]+)"}]
    job = trainer.train(
        LITERAL,
        HyperParameters={"epochs": "3"},
        AlgorithmSpecification={"MetricDefinitions": metrics},
    )
    name = job["TrainingJobName"]
    log = trainer.log(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed", log
    for line in (
        "input ['a.txt', 'sub']",
        "config ['hyperparameters.json', 'inputdataconfig.json', 'resourceconfig.json']",
        "epochs 3",
        f"Testing Loss: {0.25}",
    ):
        assert line in log.splitlines()
    assert [(t["Status"], t["StatusMessage"]) for t in job["SecondaryStatusTransitions"]] == [
        ("Starting", "Starting the training job"),
        ("Downloading", "Downloading input data"),
        ("Training", "Training image download completed. Training in progress."),
        ("Uploading", "Uploading generated training model"),
        ("Completed", "Training job completed"),
    ]
    assert all(t["EndTime"] >= t["StartTime"] for t in job["SecondaryStatusTransitions"])
    assert (
        job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/{name}/output/model.tar.gz"
    )
    with tarfile.open(fileobj=io.BytesIO(trainer.get(f"out/{name}/output/model.tar.gz"))) as tar:
        assert tar.getnames() == ["model.pth"]
    assert trainer.keys(f"out/{name}/") == [
        f"out/{name}/output/model.tar.gz",
        f"out/{name}/output/output.tar.gz",
    ]
    assert job["TrainingTimeInSeconds"] >= 1 and job["BillableTimeInSeconds"] >= 1
    assert job["OutputDataConfig"]["KmsKeyId"] == ""
    assert job["LastModifiedTime"] >= job["TrainingEndTime"] >= job["TrainingStartTime"]
    (final,) = job["FinalMetricDataList"]
    assert (final["MetricName"], final["Value"]) == ("loss", 0.25)
    statistics = trainer.cloudwatch.get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName="loss",
        Dimensions=[{"Name": "TrainingJobName", "Value": name}],
        StartTime=job["TrainingStartTime"] - timedelta(minutes=1),
        EndTime=job["TrainingEndTime"] + timedelta(minutes=1),
        Period=60,
        Statistics=["Average", "SampleCount", "Minimum"],
    )["Datapoints"]
    assert sum(point["SampleCount"] for point in statistics) == 2
    assert min(point["Minimum"] for point in statistics) == 0.25


WORDS = (
    "import json, os, sys; print('WORDS', json.dumps(sys.argv[1:]), 'CLOCHE_SHELL' in os.environ)"
)
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
SPLIT = '["--device", "cpu", "--layers", "64", "32", "--verbose"]'
EXACT = json.dumps(["--device", '"cpu"', "--layers", "64 32", "--verbose", ""])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (f"{REGISTRY}/pytorch-training:2.6-cpu-py312", SPLIT),
        (
            "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
            EXACT,
        ),
    ],
)
def test_hyperparameters_are_words_as_the_image_makes_them(
    image: str, words: str, trainer: Trainer
) -> None:
    log = trainer.completed(
        WORDS,
        AlgorithmSpecification={"TrainingImage": image},
        HyperParameters={"device": '"\\"cpu\\""', "layers": '"64 32"', "verbose": '""'},
    )
    assert f"WORDS {words} False" in log.splitlines()


PARTS = """
import time
print('x' * 5000, 'loss=0.5', flush=True)
print('epoch 1 ...', end=' ', flush=True)
time.sleep(2.5)  # longer than an unfinished line is kept back
print('accuracy=0.75')
"""


def test_metric_of_a_line_in_two_parts_and_of_a_long_one(trainer: Trainer) -> None:
    metrics = [
        {"Name": "accuracy", "Regex": "epoch [0-9]+ .*accuracy=([0-9.]+)"},
        {"Name": "loss", "Regex": "loss=([0-9.]+)"},
    ]
    job = trainer.train(PARTS, AlgorithmSpecification={"MetricDefinitions": metrics})
    found = {each["MetricName"]: each["Value"] for each in job["FinalMetricDataList"]}
    assert found == {"accuracy": 0.75, "loss": 0.5}
    lines = trainer.log(job["TrainingJobName"]).splitlines()
    assert "epoch 1 ... " in lines and "accuracy=0.75" in lines, "the log shows what it has at once"


HOLD = "import time; print('READY', flush=True); time.sleep(1); print('AT', time.time())"


def test_job_waits_for_its_turn(trainer: Trainer) -> None:
    everything = {"InstanceType": "ml.m5.24xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    first = trainer.start(HOLD, ResourceConfig=everything)
    trainer.says(first, "READY")
    second = trainer.start("import time; print('AT', time.time())", ResourceConfig=everything)
    wait_for(lambda: trainer.describe(second)["SecondaryStatus"] == "Pending")
    message = trainer.describe(second)["SecondaryStatusTransitions"][-1]["StatusMessage"]
    assert message.startswith("Waiting for capacity: needs ") and " of " in message
    assert message.endswith(f" are free; held by training job {first}")
    ends = [trainer.ended(name) for name in (first, second)]
    assert [job["TrainingJobStatus"] for job in ends] == ["Completed", "Completed"]
    assert ends[1]["SecondaryStatusTransitions"][3]["Status"] == "Training"
    # By the scripts' own clocks: the second one may run before it is written that the first ended.
    ended, started = (float(trainer.log(n).split("\nAT ")[1].split()[0]) for n in (first, second))
    assert started > ended


def test_fast_file_mode_and_manifest(trainer: Trainer) -> None:
    manifest = [{"prefix": f"s3://{BUCKET}/in/"}, "a.txt", "sub/b.txt"]
    uri = trainer.put("manifests/one", json.dumps(manifest))
    trainer.put("mani-other", "x")
    log = trainer.completed(
        "import os\nfor c in ('fast', 'listed', 'named'):\n"
        "  print(c, sorted(os.path.relpath(os.path.join(d, f), '/opt/ml/input/data/' + c)"
        " for d, _, fs in os.walk('/opt/ml/input/data/' + c) for f in fs))\n"
        "print(os.environ['SM_INPUT_DATA_CONFIG'])",
        InputDataConfig=[
            channel("fast", f"s3://{BUCKET}/in/", InputMode="FastFile", ContentType="text/plain"),
            channel("listed", uri, "ManifestFile"),
            channel("named", f"s3://{BUCKET}/mani"),
        ],
    ).splitlines()
    assert "fast ['a.txt', 'sub/b.txt']" in log
    assert "listed ['a.txt', 'sub/b.txt']" in log
    assert "named ['mani-other', 'manifests/one']" in log
    config = next(json.loads(line) for line in log if line.startswith('{"fast"'))
    assert config["fast"]["TrainingInputMode"] == "FastFile"
    assert config["fast"]["ContentType"] == "text/plain"


def test_failure_reason(trainer: Trainer) -> None:
    job = trainer.train(
        "def f():\n  raise ValueError('no such thing')\nf()", HyperParameters={"b": "2"}
    )
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith(
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n"
        'ErrorMessage "ValueError: no such thing"\nCommand "'
    )
    assert reason.endswith(' hpo.py -b 2", exit code: 1')
    statuses = [t["Status"] for t in job["SecondaryStatusTransitions"]]
    assert statuses[-2:] == ["Uploading", "Failed"]
    assert "Traceback (most recent call last):" in trainer.log(job["TrainingJobName"])


def test_entrypoint_with_literal_paths(trainer: Trainer) -> None:
    """As the 3.x SDK sends it: a driver in a channel, run by bash."""
    trainer.put("drivers/train.sh", "\n#!/bin/bash\npython3 -c 'print(6*7)'; cat $1; exit 3\n")
    job = trainer.train(
        HyperParameters={},
        InputDataConfig=[
            channel("training", f"s3://{BUCKET}/in"),
            channel("drivers", f"s3://{BUCKET}/drivers"),
        ],
        AlgorithmSpecification={
            "ContainerEntrypoint": ["/bin/bash"],
            "ContainerArguments": [
                "-c",
                "chmod +x /opt/ml/input/data/drivers/train.sh && "
                "/opt/ml/input/data/drivers/train.sh /opt/ml/input/data/training/a.txt",
            ],
        },
    )
    assert job["FailureReason"] == "AlgorithmError: , exit code: 3"
    assert trainer.log(job["TrainingJobName"]).splitlines()[-2:] == ["42", "A"]


STOPPABLE = """
import os, signal, sys, time
def end(*_):
    open('/opt/ml/model/last', 'w').write('kept')
    os.write(1, b'ended politely\\n')
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print('READY', flush=True)
while True:
    time.sleep(0.1)
"""


def test_stop_keeps_the_artifacts(trainer: Trainer) -> None:
    name = trainer.start(STOPPABLE)
    trainer.says(name, "READY")
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    assert trainer.describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    job = trainer.ended(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]][-3:] == [
        "Stopping", "Uploading", "Stopped",
    ]  # fmt: skip
    assert "ended politely" in trainer.log(name)
    assert trainer.keys(f"out/{name}/") == [f"out/{name}/output/model.tar.gz"]
    with pytest.raises(trainer.sagemaker.exceptions.ClientError) as error:
        trainer.sagemaker.stop_training_job(TrainingJobName=name)
    assert error.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "The request was rejected because the training job is in status Stopped.",
    }


def test_max_runtime(trainer: Trainer) -> None:
    job = trainer.train(STOPPABLE, StoppingCondition={"MaxRuntimeInSeconds": 3})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    name = job["TrainingJobName"]
    assert trainer.keys(f"out/{name}/") == [f"out/{name}/output/model.tar.gz"]


TWO = """
import os, socket, json, time
me, hosts = os.environ['SM_CURRENT_HOST'], json.loads(os.environ['SM_HOSTS'])
if me == os.environ['MASTER_ADDR']:
    server = socket.create_server((me, int(os.environ['MASTER_PORT'])))
    peer, _ = server.accept()
    print('from the other:', peer.recv(100).decode())
else:
    for _ in range(100):
        try:
            with socket.create_connection((hosts[0], 7777)) as s:
                s.sendall(me.encode())
            break
        except OSError:
            time.sleep(0.1)
open('/opt/ml/model/' + me, 'w').write(me)
"""


def test_two_hosts_reach_one_another(trainer: Trainer) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = trainer.train(TWO, ResourceConfig=resources)
    name = job["TrainingJobName"]
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "from the other: algo-2" in trainer.log(name, "algo-1").splitlines()
    with tarfile.open(fileobj=io.BytesIO(trainer.get(f"out/{name}/output/model.tar.gz"))) as tar:
        assert sorted(tar.getnames()) == ["algo-1", "algo-2"]


def test_listing(trainer: Trainer) -> None:
    first, second = trainer.start("print(1)"), trainer.start("raise SystemExit(1)")
    ended = {name: trainer.ended(name) for name in (first, second)}

    def names(**filters: Any) -> list[str]:
        answer = trainer.sagemaker.list_training_jobs(**filters)
        return [job["TrainingJobName"] for job in answer["TrainingJobSummaries"]]

    since = ended[first]["CreationTime"] - timedelta(milliseconds=1)
    assert names(CreationTimeAfter=since, SortBy="CreationTime") == [first, second]
    assert names(CreationTimeAfter=since, SortBy="Name", SortOrder="Descending") == sorted(
        [first, second], reverse=True
    )
    assert names(CreationTimeAfter=since, StatusEquals="Failed") == [second]
    assert names(CreationTimeAfter=since, NameContains=second.upper()) == [second]
    assert names(CreationTimeBefore=since, NameContains=first + "x") == []
    later = ended[second]["LastModifiedTime"]
    assert second not in names(LastModifiedTimeAfter=later, MaxResults=100)
    page = trainer.sagemaker.list_training_jobs(CreationTimeAfter=since, MaxResults=1)
    assert [job["TrainingJobName"] for job in page["TrainingJobSummaries"]] == [first]
    (summary,) = page["TrainingJobSummaries"]
    assert summary["TrainingJobStatus"] == "Completed" and summary["TrainingEndTime"]
    assert names(CreationTimeAfter=since, NextToken=page["NextToken"]) == [second]
    with pytest.raises(trainer.sagemaker.exceptions.ClientError, match="NextToken"):
        names(NextToken="not one of ours")


def test_delete_and_run_again_under_the_same_name(trainer: Trainer) -> None:
    request = trainer.request("print('first')")
    name = request["TrainingJobName"]
    trainer.sagemaker.create_training_job(**request)
    with pytest.raises(trainer.sagemaker.exceptions.ResourceInUse) as error:
        trainer.sagemaker.create_training_job(**request)
    arn = trainer.describe(name)["TrainingJobArn"]
    assert error.value.response["Error"]["Message"] == (
        "Training job names must be unique within an AWS account and region, and a training job "
        f"with this name already exists ({arn})"
    )
    trainer.ended(name)
    trainer.sagemaker.delete_training_job(TrainingJobName=name)
    with pytest.raises(trainer.sagemaker.exceptions.ClientError) as gone:
        trainer.describe(name)
    assert gone.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "Requested resource not found.",
    }
    trainer.sagemaker.create_training_job(**request)
    assert trainer.ended(name)["TrainingJobStatus"] == "Completed"


def test_running_job_is_not_deleted(trainer: Trainer) -> None:
    name = trainer.start(STOPPABLE)
    with pytest.raises(trainer.sagemaker.exceptions.ResourceInUse):
        trainer.sagemaker.delete_training_job(TrainingJobName=name)
    trainer.sagemaker.stop_training_job(TrainingJobName=name)
    assert trainer.ended(name)["TrainingJobStatus"] == "Stopped"


def test_tags(trainer: Trainer) -> None:
    name = trainer.start("pass", Tags=[{"Key": "a", "Value": "1"}])
    arn = trainer.describe(name)["TrainingJobArn"]
    tags = trainer.sagemaker.add_tags(
        ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}]
    )["Tags"]
    assert tags == [{"Key": "a", "Value": "3"}, {"Key": "b", "Value": "2"}]
    trainer.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "nothing"])
    assert trainer.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    more = [{"Key": f"k{n:02}", "Value": ""} for n in range(49)]
    trainer.sagemaker.add_tags(ResourceArn=arn, Tags=more)
    pages = trainer.sagemaker.get_paginator("list_tags").paginate(
        ResourceArn=arn, PaginationConfig={"PageSize": 50}
    )
    assert len([tag for page in pages for tag in page["Tags"]]) == 50
    for token in ("x", "²", "1" * 5000):
        with pytest.raises(trainer.sagemaker.exceptions.ClientError, match="Invalid NextToken"):
            trainer.sagemaker.list_tags(ResourceArn=arn, NextToken=token)
    with pytest.raises(trainer.sagemaker.exceptions.ClientError, match="limit of 50"):
        trainer.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "x", "Value": ""}])
    with pytest.raises(trainer.sagemaker.exceptions.ClientError, match="aws: prefixed"):
        trainer.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "aws:x", "Value": ""}])
    trainer.ended(name)
    assert len(trainer.sagemaker.list_tags(ResourceArn=arn)["Tags"]) == 50


def test_platform_that_restarts_finds_its_job(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfor n in range(25):\n    print('line', n, flush=True); time.sleep(0.1)\n"
        "open('/opt/ml/model/m', 'w').write('m')"
    )
    port = free_port()
    with start(tmp_path / "home", port=port) as first:
        name = Trainer(first).start(script)
        Trainer(first).says(name, "line 3")
        first.stop(end_gangs=False)
    with start(tmp_path / "home", port=port) as second:
        trainer = Trainer(second)
        job = trainer.ended(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        lines = [line for line in trainer.log(name).splitlines() if line.startswith("line ")]
        assert lines == [f"line {n}" for n in range(25)]
        assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
            "Starting", "Downloading", "Training", "Uploading", "Completed",
        ]  # fmt: skip
        assert trainer.keys(f"out/{name}/") == [f"out/{name}/output/model.tar.gz"]


@pytest.mark.torch
def test_torch_is_there_and_uses_the_share_of_the_machine(trainer: Trainer) -> None:
    log = trainer.completed(
        "import os, torch\nshare = int(os.environ['SM_NUM_CPUS'])\n"
        "print('threads', torch.get_num_threads() == share)\n"
        "print('sum', torch.ones(3).sum().item())"
    )
    assert "threads True" in log.splitlines() and "sum 3.0" in log.splitlines()
