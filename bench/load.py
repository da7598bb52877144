"""A mixed load, as several users make it, and what the server says of its event loop meanwhile."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import serving, training
from bench.harness import Server, Wire, recorded
from cloche.core.config import Home

SECONDS = 60.0
# How often each is asked for, a second: several users with notebooks, their jobs, and what serves.
RATES = {
    "describe": 20,
    "get small": 20,
    "invoke": 10,
    "put": 5,
    "list jobs": 2,
    "list keys": 2,
    "events": 2,
    "filter": 1,
    "get large": 1,
}
BUCKET, KEYS = "bench-load", 1000
SIZES = {"small": 10_000, "medium": 200_000, "large": 8_000_000}
LINES = 3000


def told(server: Server, folder: Path) -> str:
    """Return what the server says of its event loop."""
    token = json.loads(Home(folder).credentials.read_text())["token"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"{server.address}/_cloche/status")
    asked.add_header("Authorization", f"Bearer {token}")
    with opener.open(asked) as answer:
        found = json.load(answer)["event_loop"]
    names = {"p50_ms": "half", "p99_ms": "99%", "p99_9_ms": "99.9%", "most_ms": "most"}
    shown = ", ".join(f"{name} {found[key]:.1f}" for key, name in names.items())
    return f"{shown} ({found['looks']} looks)"


def run(server: Server) -> dict[str, float]:
    """Ask for many things at the same time, for a minute; return how many of each a second."""
    role = training.prepare(server)
    serving.deploy(server)
    requests = asks(server)
    counts = dict.fromkeys([*requests, "jobs"], 0)
    begin = time.monotonic()

    def client(name: str, ask: Callable[[], Any]) -> None:
        planned = begin
        while planned < begin + SECONDS:
            ask()
            counts[name] += 1
            planned += 1 / RATES[name]
            time.sleep(max(0.0, planned - time.monotonic()))

    def jobs(run: Callable[[], None]) -> None:
        while time.monotonic() < begin + SECONDS:
            run()
            counts["jobs"] += 1

    threads = [threading.Thread(target=client, args=one) for one in requests.items()]
    threads.append(threading.Thread(target=jobs, args=(Jobs(server, role).one,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - begin
    return {name: count / took_s for name, count in counts.items()}


def asks(server: Server) -> dict[str, Callable[[], Any]]:
    """Return what is asked for, by name, after making what there is to be asked for."""
    s3 = server.client("s3", request_checksum_calculation="when_required")
    logs = server.client("logs")
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    s3.create_bucket(Bucket=BUCKET)
    for name, size in SIZES.items():
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"x" * size)
    for number in range(KEYS):
        s3.put_object(Bucket=BUCKET, Key=f"keys/{number % 50:02d}/{number:04d}", Body=b"x")
    logs.create_log_group(logGroupName="bench")
    logs.create_log_stream(logGroupName="bench", logStreamName="bench")
    now_ms = int(time.time() * 1000)
    events = [{"timestamp": now_ms, "message": f"line {n} of a log"} for n in range(LINES)]
    stream = {"logGroupName": "bench", "logStreamName": "bench"}
    logs.put_log_events(**stream, logEvents=events)
    made = {
        "describe": (sagemaker, "describe_endpoint", {"EndpointName": "bench"}),
        "list jobs": (sagemaker, "list_training_jobs", {"MaxResults": 100}),
        "get small": (s3, "get_object", {"Bucket": BUCKET, "Key": "small"}),
        "get large": (s3, "get_object", {"Bucket": BUCKET, "Key": "large"}),
        "put": (s3, "put_object", {"Bucket": BUCKET, "Key": "put", "Body": bytes(200_000)}),
        "list keys": (s3, "list_objects_v2", {"Bucket": BUCKET}),
        "events": (logs, "get_log_events", {**stream, "startFromHead": True}),
        "filter": (logs, "filter_log_events", {"logGroupName": "bench", "filterPattern": "999"}),
        "invoke": (runtime, "invoke_endpoint", {"EndpointName": "bench", "Body": b"x" * 100_000}),
    }
    return {name: wire(*one).send for name, one in made.items()}


def wire(client: Any, operation: str, parameters: dict[str, Any]) -> Wire:
    """Return a request to be sent again and again."""
    request = recorded(client, operation, **parameters)
    for name in ("host", "expect"):  # the wire writes its own, and waits for nothing
        if name in request.headers:
            del request.headers[name]
    return Wire(request)


class Jobs:
    """Jobs one after the other, through boto3, each a script that prints a line."""

    def __init__(self, server: Server, role: str) -> None:
        self.server, self.role, self.number = server, role, 0
        body = training.archive("print('loss: 0.5')")
        server.client("s3").put_object(Bucket=training.BUCKET, Key="j/sourcedir.tar.gz", Body=body)
        self.sagemaker = server.client("sagemaker")

    def one(self) -> None:
        """Run a job to its end."""
        self.number += 1
        name = f"load-{self.number}"
        request = training.request_of("j", self.role) | {"TrainingJobName": name}
        self.sagemaker.create_training_job(**request)
        training.wait(self.sagemaker, name)
