"""Jobs outlive the server, unless they are asked to stop with it."""

import json
import os
import signal
from pathlib import Path

import pytest
import small_job
from cli_command import Cloche, until

from cloche.cli.down import farewell, is_alive
from cloche.core.config import Home

pytestmark = pytest.mark.torch  # the framework image stands for an environment with torch

SCRIPT = """
import os, pathlib, time
print("first line", flush=True)
time.sleep({seconds})
print("last line", flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_text("42")
"""


def start_job(cloche: Cloche, seconds: int) -> None:
    """Start job-1 and return once its script runs."""
    role = json.loads((cloche.home / "credentials.json").read_text())["role_arn"]
    script = SCRIPT.format(seconds=seconds)
    small_job.start(cloche.client("s3"), cloche.client("sagemaker"), role, script)
    until(lambda: log(cloche).count("first line") == 1, 60)


def log(cloche: Cloche) -> str:
    return small_job.log(cloche.client("logs"))


def job_status(cloche: Cloche) -> str:
    return small_job.status(cloche.client("sagemaker"))


def test_a_job_goes_on_without_the_server_and_is_finished_once(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 10)
    pid = cloche.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    cloche.up()
    assert job_status(cloche) == "InProgress"
    said = cloche("down").stdout
    assert "1 job (job-1) goes on running; `cloche up` picks it up." in said
    cloche.up()
    until(lambda: job_status(cloche) == "Completed", 60)
    assert log(cloche).count("first line") == log(cloche).count("last line") == 1
    keys = cloche.client("s3").list_objects_v2(Bucket="jobs", Prefix="out/")["Contents"]
    assert [key["Key"] for key in keys] == ["out/job-1/output/model.tar.gz"]


def test_down_says_what_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert farewell(home, [], []) == "Cloche is down; everything is kept."
    assert farewell(home, ["a", "b"], ["c"]) == (
        "Cloche is down. 2 jobs (a, b) and 1 endpoint (c) go on running; "
        f"`cloche up --home {tmp_path}` picks them up."
    )


def test_jobs_stop_with_the_server_when_asked(cloche: Cloche) -> None:
    cloche.up()
    start_job(cloche, 600)
    said = cloche("down", "--stop-jobs").stdout
    assert "Stopping 1 job: job-1" in said and "Cloche is down; everything is kept." in said
    cloche.up()
    assert job_status(cloche) == "Stopped"
    assert "last line" not in log(cloche)
