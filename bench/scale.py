"""Many things at once: jobs that wait, folders of keys that are listed, a start after kill -9.

The peer of each is the same request while there is little: what is asked for is what may cost.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import statistics
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import (
    ACCOUNT,
    KEY,
    REGION,
    SECRET,
    Server,
    Wire,
    end_gangs,
    free_port,
    process,
    recorded,
    title,
)
from cloche.core.config import Home
from cloche.engine.local.engine import LocalEngine
from cloche.records import objects
from cloche.records.objects import ObjectRow
from cloche.records.store import Store
from cloche.services.s3.document import Document, dump

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:1.8-cpu-py36"
WAITING = (350, 1000)
FOLDERS, KEYS = 1000, 1000
SECONDS = 5.0
HOLD = b"import time\nprint('READY', flush=True)\ntime.sleep(3600)\n"
ENTRIES_WITHIN_S = 600.0


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="cloche-bench-"))
    try:
        fill(folder)
        with serve(folder) as server:
            listing(server)
        with serve(folder) as server:
            waiting(server)
            title("start after kill -9, with as many jobs waiting")
            os.kill(server.pid, signal.SIGKILL)
        for _ in range(3):
            begin = time.monotonic()
            with serve(folder) as server:
                took = time.monotonic() - begin
                print(f"  {'answers again after':<28}{took:>12.3g} s", flush=True)
                os.kill(server.pid, signal.SIGKILL)
    finally:
        end_gangs(LocalEngine(Home(folder).runs))
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Run `cloche up` in a home folder that stays."""
    port = free_port()
    command = [sys.executable, "-m", "cloche", "up", "--home", str(folder), "--port", str(port)]
    command += ["--region", REGION, "--account-id", ACCOUNT]
    command += ["--root-access-key-id", KEY, "--root-secret-access-key", SECRET]
    address = f"http://127.0.0.1:{port}"
    with process(command, f"{address}/_cloche/health") as pid:
        yield Server("cloche", address, pid, KEY, SECRET)


def fill(folder: Path) -> None:
    """Make the keys as the database has them: putting a million would take hours."""
    with serve(folder) as server:
        server.client("s3").create_bucket(Bucket="many")
    store = Store.open(Home(folder).database)
    document = dump(Document())

    def put(first: int) -> Any:
        def change(connection: Any) -> None:
            for number in range(first, first + 10):
                for key in range(KEYS):
                    name = f"folder-{number:04d}/key-{key:04d}"
                    row = ObjectRow("many", name, 1, "0" * 32, 1, f"{number}-{key}", document)
                    objects.put_object(connection, row)

        return change

    for first in range(0, FOLDERS, 10):
        store.write_now(put(first))
    store.close()


def listing(server: Server) -> None:
    """List folders, each of many keys, and see whether others wait meanwhile."""
    title(f"{FOLDERS} folders of {KEYS} keys, milliseconds")
    s3 = server.client("s3")
    flat = Wire(recorded(s3, "list_objects_v2", Bucket="many"))
    show("a page of 1,000 keys", [ms(flat.send) for _ in range(10)])
    for operation in ("list_objects_v2", "list_objects"):
        page = Wire(recorded(s3, operation, Bucket="many", Delimiter="/"))
        show(f"{operation}, delimiter", [ms(page.send) for _ in range(10)])


def waiting(server: Server) -> None:
    """Let jobs wait for one that runs; ask for the health, and for a job, meanwhile."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust |= {"Principal": {"Service": "sagemaker.amazonaws.com"}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = server.client("iam").create_role(RoleName="b", AssumeRolePolicyDocument=document)
    s3.create_bucket(Bucket="bench")
    s3.put_object(Bucket="bench", Key="source.tar.gz", Body=source())

    def start(name: str) -> None:
        sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=role["Role"]["Arn"],
            AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            HyperParameters={
                "sagemaker_program": '"main.py"',
                "sagemaker_submit_directory": '"s3://bench/source.tar.gz"',
            },
            OutputDataConfig={"S3OutputPath": "s3://bench/out"},
            ResourceConfig={
                "InstanceType": "ml.m5.24xlarge",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 7200},
        )

    def secondary(name: str) -> str:
        found = sagemaker.describe_training_job(TrainingJobName=name)
        return str(found["SecondaryStatus"])

    start("first")
    until(lambda: secondary("first") == "Training")
    describe = Wire(recorded(sagemaker, "describe_training_job", TrainingJobName="first"))
    title("jobs that wait, milliseconds")
    show("describe, nobody waits", look(server, describe)[1])
    made = 0
    for count in WAITING:
        begin, cpu_s = time.monotonic(), server.cpu_s()
        while made < count:
            start(f"waits-{made:04d}")
            made += 1
        last = f"waits-{count - 1:04d}"
        until(lambda last=last: secondary(last) == "Pending")  # type: ignore[misc]
        took, used = time.monotonic() - begin, server.cpu_s() - cpu_s
        print(f"  {count} wait after {took:.1f} s, CPU {used:.1f} s", flush=True)
        cpu_s = server.cpu_s()
        health, described = look(server, describe)
        show(f"health, {count} wait", health)
        show(f"describe, {count} wait", described)
        print(f"  CPU: {(server.cpu_s() - cpu_s) / SECONDS / 2:.0%} of a core", flush=True)


def look(server: Server, describe: Wire) -> tuple[list[float], list[float]]:
    """Return how long the health, and a description, took, again and again for some seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def health() -> None:
        opener.open(f"{server.address}/_cloche/health", timeout=60).read()

    found: list[list[float]] = []
    for ask in (health, describe.send):
        times: list[float] = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            times.append(ms(ask))
            time.sleep(0.01)
        found.append(times)
    return found[0], found[1]


def ms(ask: Any) -> float:
    """Return how long a call takes, in milliseconds."""
    begin = time.perf_counter()
    ask()
    return (time.perf_counter() - begin) * 1000


def show(what: str, times: list[float]) -> None:
    """Print the median and the longest."""
    median = statistics.median(times)
    print(f"  {what:<28}{median:>12.4g}   (longest {max(times):.4g})", flush=True)


def until(condition: Any) -> None:
    """Wait for a condition."""
    end = time.monotonic() + ENTRIES_WITHIN_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("it takes too long")
        time.sleep(0.1)


def source() -> bytes:
    """Return the archive of a script that holds what it has."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("main.py")
        member.size = len(HOLD)
        tar.addfile(member, io.BytesIO(HOLD))
    return archive.getvalue()
