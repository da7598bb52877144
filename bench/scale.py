"""Many things at once: keys in folders, jobs that wait, jobs that ended, endpoints that idle, and
how late the event loop is while much is asked for.

The peer of each is the same with little: what is asked for is what may cost. A part runs by itself:
`python -m bench.scale listing`, `waiting`, `kept`, `lag`.
"""

import contextlib
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import load, serving, training
from bench.harness import Server, Wire, home_folder, kill, recorded, title, until
from bench.harness import serving as serve
from cloche.core.config import Home
from cloche.engine.local.accounts import BACKGROUND_PARTS
from cloche.records import objects
from cloche.records.objects import ObjectRow
from cloche.records.store import Store
from cloche.services.s3.document import Document, dump

FOLDERS, KEYS = 1000, 1000
WAITING, SHORT, FEW = 1000, 20, 20  # jobs: in the long queue, in the short one, looked at
ENDED, ENDPOINTS = 10_000, 100
LOOK_S, IDLE_S = 5.0, 20.0
QUIET = 0.1  # of a core
HOLD = "import time\nprint('READY', flush=True)\ntime.sleep(3600)\n"
QUICK = "print('done')\n"
BUCKET = training.BUCKET


def main() -> None:
    for part in [PARTS[name] for name in sys.argv[1:]] or PARTS.values():
        part()


# ---------------------------------------------------------------------- keys in folders


def listing() -> None:
    """List folders, each of many keys."""
    with home_folder() as folder:
        fill(folder)
        with serve(folder) as server:
            title(f"{FOLDERS} folders of {KEYS} keys, ms a page   (aim: delimiter under 20 ms)")
            begin = time.monotonic()
            until(lambda: idle_share(server, 1.0) < QUIET)
            print(f"  what the start looks through: {time.monotonic() - begin:.0f} s")
            s3 = server.client("s3")
            for what, operation, more in (
                ("1,000 keys", "list_objects_v2", {}),
                ("1,000 folders", "list_objects_v2", {"Delimiter": "/"}),
                ("1,000 folders, version 1", "list_objects", {"Delimiter": "/"}),
                ("one folder's keys", "list_objects_v2", {"Delimiter": "/", "Prefix": "f-0500/"}),
            ):
                page = Wire(recorded(s3, operation, Bucket="many", **more))
                cpu_s = server.cpu_s()
                times = [ms(page.send) for _ in range(20)]
                show(what, times, f"CPU {(server.cpu_s() - cpu_s) / 20 * 1000:.3g} ms")


def fill(folder: Path) -> None:
    """Make the keys as the database has them: putting a million would take hours."""
    with serve(folder) as server:
        server.client("s3").create_bucket(Bucket="many")
    store = Store.open(Home(folder).database)
    document = dump(Document())

    def put(first: int) -> Callable[[Any], None]:
        def change(connection: Any) -> None:
            for number in range(first, first + 10):
                for key in range(KEYS):
                    name = f"f-{number:04d}/key-{key:04d}"
                    row = ObjectRow("many", name, 1, "0" * 32, 1, f"{number}-{key}", document)
                    objects.put_object(connection, row)

        return change

    for first in range(0, FOLDERS, 10):
        store.write_now(put(first))
    store.close()


# ---------------------------------------------------------------------- jobs that wait


def waiting() -> None:
    """Let 1,000 jobs wait for one that runs, beside a server with one job and a short queue."""
    with (
        home_folder() as quiet_home,
        home_folder() as busy_home,
        serve(quiet_home) as quiet,
        serve(busy_home) as busy,
    ):
        queues = {quiet: Queue(quiet), busy: Queue(busy)}
        for queue in queues.values():
            queue.hold()
        begin, cpu_s = time.monotonic(), busy.cpu_s()
        queues[busy].add(WAITING)
        title(f"{WAITING} jobs that wait   (aims: describe within 3 times, under 2% of a core)")
        made_s = time.monotonic() - begin
        queues[busy].wait_for_all()
        took, used = time.monotonic() - begin, busy.cpu_s() - cpu_s
        print(f"  created in {made_s:.1f} s, all Pending after {took:.1f} s, CPU {used:.1f} s")
        describes = {server: queue.describe() for server, queue in queues.items()}
        times: dict[Server, list[float]] = {server: [] for server in queues}
        for _ in range(5):
            for server, describe in describes.items():
                times[server] += look(describe.send, LOOK_S / 5)
        show("describe, nobody waits", times[quiet])
        ratio = statistics.median(times[busy]) / statistics.median(times[quiet])
        show(f"describe, {WAITING} wait", times[busy], f"{ratio:.2f} x nobody")
        print(f"  CPU while nobody asks: {idle_share(busy, IDLE_S):.2%} of a core", flush=True)
        queues[quiet].add(SHORT)
        queues[quiet].wait_for_all()
        title("seconds from one start to the next   (aim: the same)")
        paces = {}
        for name, server in (("a short queue", quiet), ("the long one", busy)):
            paces[name] = queues[server].release()
            show(name, paces[name][0], paces[name][1])
        starts(busy_home)


class Queue:
    """Jobs of one server that need all of the machine each."""

    def __init__(self, server: Server) -> None:
        self.server, self.role, self.names = server, training.prepare(server), list[str]()
        self.s3, self.sagemaker = server.client("s3"), server.client("sagemaker")
        for key, script in (("hold", HOLD), ("quick", QUICK)):
            body = training.archive(script)
            self.s3.put_object(Bucket=BUCKET, Key=f"{key}/sourcedir.tar.gz", Body=body)

    def start(self, name: str, script: str) -> None:
        """Create a job."""
        request = training.request_of(script, self.role) | {"TrainingJobName": name}
        request["ResourceConfig"]["InstanceType"] = "ml.m5.24xlarge"
        request["StoppingCondition"] = {"MaxRuntimeInSeconds": 7200}
        self.sagemaker.create_training_job(**request)

    def hold(self) -> None:
        """Have the machine taken."""
        self.start("hold", "hold")
        until(lambda: self.described("hold")["SecondaryStatus"] == "Training")

    def add(self, count: int) -> None:
        """Create jobs at once; their names say in which order they came."""
        with ThreadPoolExecutor(4) as pool:
            self.names += [f"waits-{number:04d}" for number in range(count)]
            list(pool.map(lambda name: self.start(name, "quick"), self.names))

    def described(self, name: str) -> dict[str, Any]:
        """Return what DescribeTrainingJob says."""
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def describe(self) -> Wire:
        """Return a request that describes the job that runs."""
        request = recorded(self.sagemaker, "describe_training_job", TrainingJobName="hold")
        return Wire(request)

    def wait_for_all(self) -> None:
        """Wait until each says that it waits for the machine."""
        for name in self.names:
            until(lambda name=name: self.described(name)["SecondaryStatus"] == "Pending")

    def release(self) -> tuple[list[float], str]:
        """Free the machine; return the seconds between starts, and whether in the order made."""
        jobs = sorted((self.described(n)["CreationTime"], n) for n in self.names)
        first = [name for _, name in jobs[:FEW]]
        self.sagemaker.stop_training_job(TrainingJobName="hold")
        until(lambda: all("TrainingEndTime" in self.described(name) for name in first))
        started = [self.described(name)["TrainingStartTime"].timestamp() for name in first]
        times = sorted(started)
        order = "in order" if started == times else "NOT in the order of creation"
        return [after - before for before, after in pairwise(times)], order


def starts(folder: Path) -> None:
    """Kill the server and start it again, with as many jobs waiting."""
    title("start after kill -9, the long queue waiting, s")
    kill(Home(folder))
    times = []
    for _ in range(3):
        begin = time.monotonic()
        with serve(folder):
            times.append(time.monotonic() - begin)
            kill(Home(folder))
    show("answers after", times)


# ---------------------------------------------------------------------- what is kept


def kept() -> None:
    """Keep 10,000 jobs that ended, and 100 endpoints of which nobody asks anything."""
    title(f"CPU of the server while nobody asks   (aim: under 5% of a core for {ENDED:,} ended")
    with home_folder() as folder:
        with serve(folder) as server:
            queue = Queue(server)
            queue.start("ended", "quick")
            until(lambda: "TrainingEndTime" in queue.described("ended"))
            serving.deploy(server)
            print(f"  one of each: {idle_share(server, IDLE_S):.2%}", flush=True)
        multiply(folder, "ended", ENDED)
        with serve(folder) as server:
            print(f"  {ENDED:,} ended jobs: {idle_share(server, IDLE_S):.2%}", flush=True)
            sagemaker = server.client("sagemaker")
            page = Wire(recorded(sagemaker, "list_training_jobs", NameContains="no-such"))
            show("    a list that finds none, ms", [ms(page.send) for _ in range(20)])
            begin = time.monotonic()
            names = [f"idle-{number:03d}" for number in range(ENDPOINTS)]
            for name in names:
                sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="bench")
            # As many as the machine has memory for; the others wait for theirs.
            until(lambda: len(up(sagemaker)) == min(BACKGROUND_PARTS, ENDPOINTS + 1))
            count = len(up(sagemaker))
            print(f"  {count} endpoints are up after {time.monotonic() - begin:.0f} s")
            share = idle_share(server, IDLE_S)
            waiting = f"{ENDPOINTS + 1 - count} that wait"
            print(f"  {ENDED:,} ended jobs, {count} endpoints, {waiting}: {share:.2%}", flush=True)
            for name in names:
                sagemaker.delete_endpoint(EndpointName=name)
            until(lambda: len(sagemaker.list_endpoints()["Endpoints"]) == 1)


def up(sagemaker: Any) -> list[Any]:
    """Return the endpoints in service."""
    found: list[Any] = sagemaker.list_endpoints(StatusEquals="InService", MaxResults=100)[
        "Endpoints"
    ]
    return found


def multiply(folder: Path, name: str, count: int) -> None:
    """Copy a job's rows, so that there are as many more of other names."""
    numbers = f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    numbers += " SELECT i FROM n)"
    with contextlib.closing(sqlite3.connect(Home(folder).database)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(resource)")]
        columns = [column for column in columns if column != "id"]
        values = [f"{c} || '-' || i" if c in ("name", "arn") else c for c in columns]
        database.execute(
            f"INSERT INTO resource ({', '.join(columns)}) "
            f"SELECT {', '.join(values)} FROM resource, {numbers} WHERE name = '{name}'"
        )


# ---------------------------------------------------------------------- the event loop


def lag() -> None:
    """Look how late the event loop is, nobody asking, and while much is asked for."""
    title("how late the event loop is, ms   (aim: 99.9% under 20 ms)")
    with home_folder() as folder, serve(folder) as server:
        time.sleep(IDLE_S)
        print(f"  nobody asks: {load.told(server, folder)}", flush=True)
    with home_folder() as folder, serve(folder) as server:
        rates = load.run(server)
        print(f"  mixed load:  {load.told(server, folder)}", flush=True)
        print(f"    {', '.join(f'{name} {rate:.3g}/s' for name, rate in rates.items())}")


# ---------------------------------------------------------------------- shared


def idle_share(server: Server, seconds: float) -> float:
    """Return the part of a core that a server uses while nobody asks it anything."""
    time.sleep(2.0)  # for what was asked before to be over
    cpu_s, begin = server.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu_s() - cpu_s) / (time.monotonic() - begin)


def look(ask: Callable[[], object], seconds: float) -> list[float]:
    """Return how long a call takes, in milliseconds, again and again for some time."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(ms(ask))
        time.sleep(0.01)
    return times


def ms(ask: Callable[[], object]) -> float:
    """Return how long a call takes, in milliseconds."""
    begin = time.perf_counter()
    ask()
    return (time.perf_counter() - begin) * 1000


def show(what: str, values: list[float], more: str = "") -> None:
    """Print the median and the extremes."""
    median, least, most = statistics.median(values), min(values), max(values)
    print(f"  {what:<28}{median:>12.4g}   ({least:.4g} .. {most:.4g})   {more}", flush=True)


PARTS = {"listing": listing, "waiting": waiting, "kept": kept, "lag": lag}

if __name__ == "__main__":
    main()
