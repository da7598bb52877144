"""An upgrade: the release before this one has a job and an endpoint running, and is killed.

This code's server takes its home folder over: supervisors, sandboxes and records are the older
release's, and go on.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_server import Server, archive, end_all, until
from test_kill import BUCKET, DOOMED, STEADY, STORY, Story

OLDER = Path(__file__).with_name("older.py")
ROOT = Path(__file__).resolve().parents[2]
BEFORE = "b9b1ca7002702bd31f6932da118acebd68f82a0e"  # the release that this one follows
SCRIPT = f"""
import os, time, boto3
s3 = boto3.client("s3")
print("waits", flush=True)
while s3.list_objects_v2(Bucket="{BUCKET}", Prefix="go")["KeyCount"] == 0:
    time.sleep(0.1)
print("loss=0.25;", open("/opt/ml/input/data/training/a.txt").read(), flush=True)
with open("/opt/ml/checkpoints/last", "w") as file:
    file.write("7")
with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "w") as file:
    file.write("42")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, OLDER)
    made.release = older(tmp_path / "before")
    yield made
    end_all(made)


def older(folder: Path) -> Path:
    """Return a folder with the package of the release before this one, from git's history."""
    folder.mkdir()
    packed = subprocess.run(
        ["git", "-c", "safe.directory=*", "archive", BEFORE, "cloche"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if packed.returncode:
        pytest.skip(
            f"The release before this one ({BEFORE}) is read from git's history, which is not "
            f"there (git fetch --unshallow): {packed.stderr.decode()}"
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def gangs(server: Server) -> list[str]:
    return sorted(path.name for path in (server.home / "runs").iterdir() if path.name[0] != ".")


def supervisor(server: Server, gang: str) -> str:
    """Return the command line of what looks after a gang: it names the code that it runs."""
    state = json.loads((server.home / "runs" / gang / "state.json").read_text())
    return Path(f"/proc/{state['supervisor']}/cmdline").read_text()


def said(server: Server) -> list[str]:
    found = server.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{STORY}/"
    )
    return [event["message"] for event in found["events"]]


def begin(story: Story) -> None:
    """Have an endpoint in service, and a job that waits for the object "go"."""
    story.prepare_endpoints()
    story.deploy(STEADY)
    story.server.client("s3").put_object(
        Bucket=BUCKET, Key="source.tar.gz", Body=archive({"train.py": SCRIPT})
    )
    story.train(
        metrics=[{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints"},
    )
    until(lambda: story.endpoint(STEADY) != "Creating")
    assert story.answer(STEADY) == 42
    until(lambda: "waits" in said(story.server))


def test_what_the_older_release_began_goes_on(server: Server) -> None:
    server.up(doomed=False)
    story = Story(server)
    begin(story)
    before = gangs(server)
    assert len(before) == 2
    assert all(str(server.release) in supervisor(server, gang) for gang in before)
    server.kill()

    server.release, server.program = None, DOOMED
    server.up(doomed=False)
    assert story.answer(STEADY) == 42
    assert gangs(server) == before  # the same processes
    assert story.job()["TrainingJobStatus"] == "InProgress"
    server.client("s3").put_object(Bucket=BUCKET, Key="go")
    until(lambda: story.job()["TrainingJobStatus"] != "InProgress")
    check(story.job(), server)

    server.client("sagemaker").delete_endpoint(EndpointName=STEADY)
    until(lambda: story.endpoint(STEADY) == "gone")
    assert gangs(server) == []


def check(job: Any, server: Server) -> None:
    """The job has ended as it would have without an upgrade."""
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = said(server)
    assert lines[lines.index("waits") + 1] == "loss=0.25; hello"
    assert [(one["MetricName"], one["Value"]) for one in job["FinalMetricDataList"]] == [
        ("loss", 0.25)
    ]
    s3 = server.client("s3")
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/")
    with tarfile.open(
        fileobj=io.BytesIO(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    ) as t:
        weights = t.extractfile("weights")
        assert weights is not None and weights.read() == b"42"
    assert s3.get_object(Bucket=BUCKET, Key="checkpoints/last")["Body"].read() == b"7"
