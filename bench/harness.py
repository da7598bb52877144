"""What benchmarks share: interleaved runs, ratios, servers with their CPU time, plain HTTP.

A benchmark is a module of this package with `main() -> None`, listed in `__main__.BENCHES`. It
prints; it never fails because something is slow. One number of a busy machine says little, so each
subject runs in turn with its peer, several rounds, and the ratio of the medians is printed:

    from bench.harness import compare, interleave

    runs = interleave(5, {"bare script": bare, "as a job": job})     # each returns a float
    compare("hpo.py", "images/s", runs, against="bare script", aim="within 2% of the bare script")

`interleave` calls the subjects alternately and keeps what they return (`timed(f)` returns seconds).
`compare` prints a line a subject: median, lowest, highest, and the ratio to the peer's median.
`cloche_server()` and `moto_server()` are servers in processes of their own, with `.cpu_s()`.
`Wire` sends a request made once (signed by botocore) again and again: the client costs little.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config

from cloche.core.config import Home
from cloche.engine.local.engine import LocalEngine

REGION, ACCOUNT = "us-east-1", "123456789012"
KEY, SECRET = "AKIABENCHMARKBENCHMA", "benchmark-secret-key-of-forty-characters"
STARTS_WITHIN_S, ENDS_WITHIN_S = 60.0, 30.0

Runs = dict[str, list[float]]


def interleave(rounds: int, subjects: Mapping[str, Callable[[], float]]) -> Runs:
    """Call each subject once a round, in turn; return what each returned, by name.

    The first subject of a round is another one each time, so that none always goes first.
    """
    names = list(subjects)
    runs: Runs = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            runs[name].append(subjects[name]())
    return runs


def timed(subject: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs the subject and returns the seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        subject()
        return time.perf_counter() - start

    return run


def compare(what: str, unit: str, runs: Runs, *, against: str, aim: str = "") -> None:
    """Print the subjects of one measurement, each with its ratio to the peer's median."""
    title(f"{what}, {unit}" + (f"   (aim: {aim})" if aim else ""))
    peer = statistics.median(runs[against])
    for name, values in runs.items():
        median = statistics.median(values)
        ratio = "" if name == against else f"{median / peer:8.3f} x {against}"
        print(
            f"  {name:<28}{median:>12.4g}   ({min(values):.4g} .. {max(values):.4g}, "
            f"{len(values)} rounds){ratio}",
            flush=True,
        )


def title(text: str) -> None:
    """Print what is measured next."""
    print(f"\n{text}", flush=True)


# ---------------------------------------------------------------------- servers

TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
    '"Principal": {"Service": "sagemaker.amazonaws.com"}}]}'
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a process of its own."""

    name: str
    address: str
    pid: int
    access_key_id: str
    secret_access_key: str

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used (without its children)."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)

    def client(self, service: str, **config: Any) -> Any:
        """Return a boto3 client."""
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(proxies={}, retries={"total_max_attempts": 1}, **config),
        )

    def role(self) -> str:
        """Return the ARN of a role for jobs: the execution role, where the server has one."""
        iam = self.client("iam")
        for role in iam.list_roles()["Roles"]:
            if "AmazonSageMaker-ExecutionRole-" in role["RoleName"]:
                return str(role["Arn"])
        made = iam.create_role(RoleName="bench", AssumeRolePolicyDocument=TRUST)
        return str(made["Role"]["Arn"])


@contextlib.contextmanager
def cloche_server() -> Iterator[Server]:
    """Run `cloche up` in a home folder of its own until the block ends."""
    with home_folder() as folder, serving(folder) as server:
        yield server


@contextlib.contextmanager
def home_folder() -> Iterator[Path]:
    """Make a home folder; in the end whatever runs in it is ended, and it is removed."""
    folder = Path(tempfile.mkdtemp(prefix="cloche-bench-"))
    try:
        yield folder
    finally:
        end_gangs(LocalEngine(Home(folder).runs))
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run `cloche up` in a home folder until the block ends; what runs there goes on."""
    Home(folder).server.unlink(missing_ok=True)  # of one that was killed
    port = free_port()
    command = [sys.executable, "-m", "cloche", "up", "--home", str(folder), "--port", str(port)]
    command += ["--region", REGION, "--account-id", ACCOUNT]
    command += ["--root-access-key-id", KEY, "--root-secret-access-key", SECRET]
    address = f"http://127.0.0.1:{port}"
    with process(command, f"{address}/_cloche/health"):
        yield Server("cloche", address, told_pid(Home(folder), "pid"), KEY, SECRET)


def kill(home: Home) -> None:
    """Kill what `cloche up` became, and the server with it."""
    os.kill(told_pid(home, "parent"), signal.SIGKILL)


def told_pid(home: Home, whose: str) -> int:
    """Return the process id of the server ("pid") or its "parent", once the server has said it."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not home.server.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{home.server} is not there")
        time.sleep(0.05)
    return int(json.loads(home.server.read_text())[whose])


def end_gangs(engine: LocalEngine) -> None:
    """End what a server left running (jobs and replicas outlive it), and wait for it."""
    for gang in engine.adopt():
        engine.stop(gang)
    deadline = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline and any(
        seen.state == "running"
        for gang in engine.adopt()
        for seen in (engine.see(gang) or {}).values()
    ):
        time.sleep(0.1)


@contextlib.contextmanager
def moto_server() -> Iterator[Server]:
    """Run moto's server until the block ends."""
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    address = f"http://127.0.0.1:{port}"
    with process([program, "-H", "127.0.0.1", "-p", str(port)], f"{address}/moto-api/") as pid:
        yield Server("moto_server", address, pid, KEY, SECRET)


@contextlib.contextmanager
def process(command: list[str], answers_at: str) -> Iterator[int]:
    """Run a command until the block ends; its pid, once the URL answers."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not answers(answers_at):
            if child.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {child.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{answers_at} does not answer")
            time.sleep(0.1)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(url: str) -> bool:
    """Tell whether something answers HTTP there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that is free, as is the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


# ---------------------------------------------------------------------- requests


def recorded(client: Any, operation: str, **parameters: Any) -> AWSPreparedRequest:
    """Return the signed request that boto3 would send (a signature is good for minutes)."""
    caught: list[AWSPreparedRequest] = []

    def stop(request: AWSPreparedRequest, **_: Any) -> None:
        caught.append(request)
        raise Recorded

    client.meta.events.register_first("before-send.*.*", stop)
    try:
        getattr(client, operation)(**parameters)
    except Recorded:
        pass
    finally:
        client.meta.events.unregister("before-send.*.*", stop)
    return caught[0]


class Recorded(Exception):
    """The request was caught."""


class Wire:
    """Sends the same request again and again, on one connection where the server keeps it."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        url = urlsplit(request.url)
        body = request.body or b""
        body = body.read() if hasattr(body, "read") else body
        body = body.encode() if isinstance(body, str) else bytes(body)
        sent = {name.lower(): value for name, value in request.headers.items()}
        headers = sent | {"host": url.netloc, "content-length": str(len(body))}
        lines = [
            f"{request.method} {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1"
        ]
        for name, value in headers.items():
            lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
        self.bytes = "\r\n".join([*lines, "", ""]).encode() + body
        self.place = (url.hostname or "", url.port or 80)
        self.socket = self._connect()
        self.rest = b""

    def send(self) -> bytes:
        """Send the request; return the body of the answer, which must be a 200."""
        self.socket.sendall(self.bytes)
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in lines
            if line.lower().startswith(b"content-length:")
        )
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        if b"connection: close" in head.lower():
            self.socket.close()
            self.socket, self.rest = self._connect(), b""
        if b" 200 " not in lines[0]:
            raise RuntimeError(f"{lines[0].decode()}: {body[:300].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(self.place)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _more(self) -> None:
        block = self.socket.recv(1 << 20)
        if not block:
            raise RuntimeError("the server closed the connection")
        self.rest += block


def until(condition: Callable[[], bool], within_s: float = 600.0) -> None:
    """Wait for a condition; RuntimeError when it takes too long."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("it takes too long")
        time.sleep(0.05)


def cores() -> int:
    """Return how many CPUs this machine gives us."""
    return len(os.sched_getaffinity(0))
