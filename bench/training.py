"""From CreateTrainingJob to the script's first line; setting up a channel of 10,000 files.

The script prints the time at which it starts; the peer is the same script started by itself. One
that imports torch is started by the fork server, and as an ordinary process too. Files are linked
from the object store, beside copying them.
"""

import asyncio
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import Server, cloche_server, compare, interleave, timed
from cloche.records.store import Store
from cloche.services.s3 import S3
from cloche.services.sagemaker.s3_objects import link_all, objects

ROUNDS, FILES, AT_ONCE = 5, 10_000, 200
ENDS_WITHIN_S = 120.0
AIM, CHANNEL_AIM = "first line under 0.5 s", "under 0.5 s"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:1.8-cpu-py36"
BUCKET, GROUP = "bench-training", "/aws/sagemaker/TrainingJobs"
SCRIPTS = {
    "without torch": "import time; print('STARTED', time.time())",
    "with torch": "import time, torch; print('STARTED', time.time())",
}
# A variable that is read when torch is loaded: whoever mentions it gets torch loaded anew.
ALONE = "\n# KMP_BLOCKTIME"


def main() -> None:
    with cloche_server() as server:
        role = prepare(server)
        numbers = iter(range(1_000))
        for kind, script in SCRIPTS.items():
            subjects = {
                "bare script": bare(script),
                "as a job": job(server, role, script, numbers.__next__),
            }
            if "torch" in script:
                alone = job(server, role, script + ALONE, numbers.__next__)
                subjects["as a job, no fork server"] = alone
                subjects["as a job"]()  # the first one shows the fork server what to import
            runs = interleave(ROUNDS, subjects)
            compare(f"First line {kind}", "s", runs, against="bare script", aim=AIM)
    asyncio.run(channels())


def bare(script: str) -> Callable[[], float]:
    """Return a function that starts the script by itself and returns the seconds it took."""

    def run() -> float:
        start = time.time()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        return float(done.stdout.split()[1]) - start

    return run


def job(server: Server, role: str, script: str, number: Callable[[], int]) -> Callable[[], float]:
    """Return a function that runs the script as a job, and returns the seconds from the request
    to the script's first line.
    """
    s3, sagemaker = server.client("s3"), server.client("sagemaker")

    def run() -> float:
        name = f"bench-{number()}"
        s3.put_object(Bucket=BUCKET, Key=f"{name}/sourcedir.tar.gz", Body=archive(script))
        request = request_of(name, role)
        start = time.time()
        sagemaker.create_training_job(**request)
        wait(sagemaker, name)
        return max(started(server, name)) - start

    return run


def request_of(name: str, role: str) -> dict[str, Any]:
    """Return CreateTrainingJob's parameters."""
    uri = f"s3://{BUCKET}/{name}/sourcedir.tar.gz"
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data/"}
    return {
        "TrainingJobName": name,
        "RoleArn": role,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {
            "sagemaker_program": json.dumps("hpo.py"),
            "sagemaker_submit_directory": json.dumps(uri),
        },
        "InputDataConfig": [
            {"ChannelName": "training", "DataSource": {"S3DataSource": source}},
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }


def prepare(server: Server) -> str:
    """Make the bucket, some input and a role; return the role's ARN."""
    s3 = server.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="data/a", Body=b"a")
    return server.role()


def archive(script: str) -> bytes:
    """Return the script as sourcedir.tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("hpo.py")
        info.size = len(script)
        tar.addfile(info, io.BytesIO(script.encode()))
    return buffer.getvalue()


def wait(sagemaker: Any, name: str) -> None:
    """Wait until the job has completed."""
    end = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < end:
        status = sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
        if status == "Completed":
            return
        if status != "InProgress":
            break
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not complete: {status}")


def started(server: Server, name: str) -> list[float]:
    """Return the times that the script printed: one a host."""
    logs = server.client("logs")
    found = logs.filter_log_events(
        logGroupName=GROUP, logStreamNamePrefix=f"{name}/", filterPattern="STARTED"
    )
    lines = [event["message"] for event in found["events"]]
    return [float(line.split()[1]) for line in lines if line.startswith("STARTED ")]


async def channels() -> None:
    """Compare links with copies of the same objects."""
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as name:
        folder = Path(name)
        store = Store.open(folder / "cloche.db")
        s3 = S3(store, folder / "blobs")
        await s3.create_bucket(BUCKET, "1", "r")
        for first in range(0, FILES, AT_ONCE):
            await asyncio.gather(
                *(
                    s3.put_bytes(BUCKET, f"data/class{n % 100}/{n}.jpg", b"x" * 1000)
                    for n in range(first, first + AT_ONCE)
                )
            )
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data/"}

        def linked() -> None:
            link_all(s3, objects(s3, source, "File"), folder / "linked")

        def copied() -> None:
            for placed in objects(s3, source, "File"):
                target = folder / "copied" / placed.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(placed.stored.path, target)

        def fresh(make: Callable[[], None], place: str) -> Callable[[], float]:
            def run() -> float:
                shutil.rmtree(folder / place, ignore_errors=True)
                return timed(make)()

            return run

        runs = interleave(
            ROUNDS, {"copied": fresh(copied, "copied"), "linked": fresh(linked, "linked")}
        )
        compare(f"Channel of {FILES} files", "s", runs, against="copied", aim=CHANNEL_AIM)
        s3.close()
        store.close()


if __name__ == "__main__":
    main()
