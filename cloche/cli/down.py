"""`cloche down`: stop the server; what runs goes on unless it is asked to stop."""

import os
import signal
import time
from collections.abc import Callable

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from cloche.cli.aws_client import AwsClient, home_option
from cloche.cli.output import Stop, count, out
from cloche.cli.status import running_jobs, running_searches, serving_endpoints
from cloche.core import home as homes
from cloche.core.config import Home
from cloche.environments import background

ENDS_WITHIN_S = 60.0
STOPS_WITHIN_S = 180.0  # AWS gives a job two minutes from SIGTERM to SIGKILL


def down(home: Home, *, stop_jobs: bool) -> None:
    """Stop the server of a home folder, and say what goes on."""
    server = homes.read_server(home)
    if server is None:
        if homes.is_held(home):
            raise Stop(f"Another `cloche up` is starting in {home.path}. Try again.")
        out.print(f"Cloche is not up (home folder {home.path}).", markup=False)
        return
    client = AwsClient(home, server)
    jobs, endpoints = what_runs(client)
    if stop_jobs:
        stop_all(client, jobs)
        jobs, endpoints = [], []
    # The parent ends with its server, and would start another one were that asked alone.
    pid = server.pid if server.parent is None else server.parent
    os.kill(pid, signal.SIGTERM)
    wait_until_gone(home, pid)
    out.print(farewell(home, jobs, endpoints), markup=False)
    for name in () if stop_jobs else background.under_way(home):
        out.print(f"The environment {name} is still being built.", markup=False)


def farewell(home: Home, jobs: list[str], endpoints: list[str]) -> str:
    """Return what to say when the server is down: what goes on without it."""
    named = [
        f"{count(len(names), noun)} ({', '.join(names)})"
        for noun, names in (("job", jobs), ("endpoint", endpoints))
        if names
    ]
    if not named:
        return "Cloche is down; everything is kept."
    one = len(jobs) + len(endpoints) == 1
    return (
        f"Cloche is down. {' and '.join(named)} {'keeps' if one else 'keep'} running; "
        f"`cloche up{home_option(home)}` picks {'it' if one else 'them'} up."
    )


def what_runs(client: AwsClient) -> tuple[list[str], list[str]]:
    """Return the jobs and the endpoints that run; none when the server does not say."""
    try:
        return running_jobs(client), serving_endpoints(client)
    except (OSError, BotoCoreError, ClientError):
        return [], []


def stop_all(client: AwsClient, jobs: list[str]) -> None:
    """Stop searches and jobs as the Stop operations do, wait, and end what else runs."""
    if jobs:
        out.print(f"Stopping {count(len(jobs), 'job')}: {', '.join(jobs)}", markup=False)
    sagemaker = client.aws("sagemaker")
    # Searches first: one that goes on would start new jobs.
    for search in running_searches(client):
        stop_one(sagemaker.stop_hyper_parameter_tuning_job, HyperParameterTuningJobName=search)
    for job in jobs:
        stop_one(sagemaker.stop_training_job, TrainingJobName=job)
    deadline = time.monotonic() + STOPS_WITHIN_S
    while left := [*running_searches(client), *running_jobs(client)]:
        if time.monotonic() > deadline:
            raise Stop(f"These jobs do not stop: {', '.join(left)}. The server is still up.")
        time.sleep(0.2)
    try:
        client.end_processes()
    except (OSError, ValueError) as error:
        raise Stop(f"The processes can't be ended: {error}. The server is still up.") from None


def stop_one(stop: Callable[..., object], **named: str) -> None:
    """Call a Stop operation; one that ended in between is fine."""
    try:
        stop(**named)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise Stop(f"{', '.join(named.values())} can't be stopped: {error}") from None


def wait_until_gone(home: Home, pid: int) -> None:
    """Return once the server has let go of the home folder and ended."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while homes.is_held(home) or is_alive(pid):
        if time.monotonic() > deadline:
            raise Stop(f"The server (pid {pid}) does not stop. This loses no data: kill -9 {pid}")
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that nobody has waited for yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
