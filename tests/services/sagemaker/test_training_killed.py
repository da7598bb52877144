"""`kill -9` of the server at every step of a job's life: after `up` it is finished, once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from training_client import BUCKET, Trainer, channel, wait_for

from cloche.testing.platform import free_port

KEY, SECRET = "AKIATESTTESTTESTTEST", "secret-of-the-test-account-0123456789abc"
# Enough objects, and enough to compress, for Downloading and Uploading to be seen from outside.
OBJECTS, MODEL_MB = 100, 16
SCRIPT = f"""
import os, time
print('files', len(os.listdir('/opt/ml/input/data/training')), flush=True)
for n in range(10):
    print('line', n, flush=True)
    time.sleep(0.1)
with open('/opt/ml/model/model.bin', 'wb') as file:
    file.write(os.urandom({MODEL_MB} << 20))
print('line 10')
"""


class Server:
    """`cloche up` in the foreground, as a process to kill."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.up()

    def up(self) -> None:
        options = ["--home", str(self.home), "--port", str(self.port), "--region", "us-east-1"]
        keys = ["--root-access-key-id", KEY, "--root-secret-access-key", SECRET]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cloche", "up", *options, *keys],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
        )
        wait_for(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            self.client("sts").get_caller_identity()
        except (EndpointConnectionError, ClientError):
            return False
        return True

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "home")
    yield running
    running.process.terminate()
    running.process.wait()


def reached(trainer: Trainer, name: str, status: str) -> Callable[[], bool]:
    """Return whether the job is, or was, in this secondary status."""
    return lambda: (
        status in [t["Status"] for t in trainer.describe(name)["SecondaryStatusTransitions"]]
    )


def test_killed_at_every_step(server: Server) -> None:
    trainer = Trainer(server)
    for n in range(OBJECTS):
        trainer.put(f"many/{n}", "x")
    moments: list[Callable[[str], Any]] = [
        lambda name: None,
        lambda name: wait_for(reached(trainer, name, "Downloading")),
        lambda name: wait_for(reached(trainer, name, "Training")),
        lambda name: trainer.says(name, "line 5"),
        lambda name: wait_for(reached(trainer, name, "Uploading")),
    ]
    names = []
    for moment in moments:
        names.append(
            trainer.start(SCRIPT, InputDataConfig=[channel("training", f"s3://{BUCKET}/many/")])
        )
        moment(names[-1])
        server.kill()
        server.up()
        trainer.ended(names[-1])
    for name in names:
        check(trainer, name)


def check(trainer: Trainer, name: str) -> None:
    """The job was run once, its log is whole, its model is there."""
    job = trainer.describe(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    lines = trainer.log(name).splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {n}" for n in range(11)]
    assert [line for line in lines if line.startswith("files ")] == [f"files {OBJECTS}"]
    size = trainer.s3.head_object(Bucket=BUCKET, Key=f"out/{name}/output/model.tar.gz")
    assert size["ContentLength"] > MODEL_MB << 20
