"""Four hosts against one, on the same machine: what it costs that they are several.

From CreateTrainingJob to the first line of the last host; and an epoch of the example's hpo.py with
the same pictures and the same global batch, as the script times it. The hosts divide the machine's
CPUs, so four of them have as much to compute with as the one: the ratio is the gang's overhead.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import images, training
from bench.harness import Server, cloche_server, compare, interleave
from cloche.tour.digits import write_digits
from cloche.tour.folder import read_folder

HOSTS, START_ROUNDS, EPOCH_ROUNDS, PER_CLASS = 4, 5, 3, 40
SCRIPT = "import time; print('STARTED', time.time())"
START_AIM, EPOCH_AIM = "4 hosts in less than twice the time", "at most 1.5 times the time"


def main() -> None:
    names = {"1 host": 1, f"{HOSTS} hosts": HOSTS}
    numbers = itertools.count(1)
    with cloche_server() as server:
        role = training.prepare(server)
        subjects = {what: start(server, role, count, numbers) for what, count in names.items()}
        runs = interleave(START_ROUNDS, subjects)
        compare("First line of the last host", "s", runs, against="1 host", aim=START_AIM)
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as name, cloche_server() as server:
        write_digits(Path(name) / "digits", per_class=PER_CLASS)
        role = images.prepare(server, read_folder(Path(name) / "digits"))
        subjects = {what: epoch(server, role, count, numbers) for what, count in names.items()}
        runs = interleave(EPOCH_ROUNDS, subjects)
        compare("An epoch of hpo.py", "s", runs, against="1 host", aim=EPOCH_AIM)


def start(server: Server, role: str, hosts: int, numbers: Iterator[int]) -> Callable[[], float]:
    """Return a function that runs a job: the seconds until its last host's first line."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")

    def run() -> float:
        name = f"gang-{next(numbers)}"
        archive = training.archive(SCRIPT)
        s3.put_object(Bucket=training.BUCKET, Key=f"{name}/sourcedir.tar.gz", Body=archive)
        request = training.request_of(name, role)
        request["ResourceConfig"]["InstanceCount"] = hosts
        begun = time.time()
        sagemaker.create_training_job(**request)
        training.wait(sagemaker, name)
        return max(training.started(server, name)) - begun

    return run


def epoch(server: Server, role: str, hosts: int, numbers: Iterator[int]) -> Callable[[], float]:
    """Return a function that runs hpo.py and returns the mean seconds of its later epochs."""

    def run() -> float:
        history = images.job(server, role, next(numbers), hosts)
        later = [one["seconds"] for one in history["epochs"][1:]]
        return float(sum(later) / len(later))

    return run
