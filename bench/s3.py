"""S3: GET and PUT of 100 KB and 100 MB beside moto_server and the bare disk, and channel set-up.

    python bench/s3.py [--seconds 2] [--rounds 3]

Requests are signed once by botocore and sent again and again over keep-alive connections by a
client that costs next to nothing, so that the servers are measured and not boto3. Everything is
measured in turn, round by round, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials

from cloche.records import objects as rows
from cloche.records.store import Store
from cloche.services.s3 import S3, StoredObject

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "tests/services/s3/s3_server.py"
ACCESS, SECRET = "AKIAEXAMPLE000000001", "secret111122223333"
BUCKET = "bench-bucket"
SMALL, LARGE = 100_000, 100_000_000
CONNECTIONS = 8
FILES = 10_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, port: int) -> Iterator[psutil.Process]:
    """Run a server until the block ends; it answers when the block begins."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield psutil.Process(running.pid)
    finally:
        running.kill()
        running.wait()


def client(port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        config=BotoConfig(proxies={}),
    )


def signed(method: str, port: int, key: str, body: bytes = b"") -> bytes:
    """Return a signed request as it goes over the wire, save the body."""
    url = f"http://127.0.0.1:{port}/{BUCKET}/{key}"
    request = AWSRequest(method, url, data=body)
    if body:
        request.headers["Content-Length"] = str(len(body))
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
    prepared = request.prepare()
    lines = [f"{method} /{BUCKET}/{key} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {_text(value)}" for name, value in prepared.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Connection:
    """A connection that is made anew where the server closes it, as moto_server does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None
        self.buffer = memoryview(bytearray(1 << 20))

    def exchange(self, head: bytes, body: bytes = b"") -> bool:
        """Send a request, read the answer to its end; tell whether it is 200.

        moto_server answers 500 to some of several GETs of one key at a time.
        """
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(body) < 1 << 20:
            self.socket.sendall(head + body)
        else:
            self.socket.sendall(head)
            self.socket.sendall(body)
        got = self.receive(0)
        while (end := bytes(self.buffer[: min(got, 4096)]).find(b"\r\n\r\n")) < 0:
            got += self.receive(got)
        top = bytes(self.buffer[:end]).lower()
        length = int(top.partition(b"content-length:")[2].partition(b"\r\n")[0])
        left = length - (got - end - 4)
        while left > 0:
            left -= self.receive(0)
        if top.startswith(b"http/1.0") or b"connection: close" in top:
            self.socket.close()
            self.socket = None
        return b" 200 " in top[:16]

    def receive(self, offset: int) -> int:
        assert self.socket is not None
        got = self.socket.recv_into(self.buffer[offset:])
        if not got:
            raise RuntimeError("the server closed the connection within an answer")
        return got


def rate(port: int, head: bytes, body: bytes, seconds: float, connections: int) -> float:
    """Return requests a second over several connections."""
    until = time.perf_counter() + seconds
    counts = [0] * connections

    def work(index: int) -> None:
        connection = Connection(port)
        while time.perf_counter() < until:
            counts[index] += connection.exchange(head, body)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def disk(folder: Path, data: bytes, seconds: float) -> float:
    """Return files written and fsynced a second."""
    until, count, began = time.perf_counter() + seconds, 0, time.perf_counter()
    while time.perf_counter() < until:
        with (folder / "raw").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        count += 1
    return count / (time.perf_counter() - began)


def requests_bench(seconds: float, rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-s3-"))
    ours, moto = free_port(), free_port()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with (
        process(sys.executable, str(SERVER), str(folder), str(ours), port=ours) as server,
        process(sys.executable, "-m", "moto.server", "-p", str(moto), port=moto),
    ):
        bodies = {"100 KB": os.urandom(SMALL), "100 MB": os.urandom(LARGE)}
        for port in (ours, moto):
            client(port).create_bucket(Bucket=BUCKET)
            for name, body in bodies.items():
                client(port).put_object(Bucket=BUCKET, Key=name.replace(" ", "-"), Body=body)
        for _ in range(rounds):
            for name, body in bodies.items():
                key = name.replace(" ", "-")
                many = CONNECTIONS if name == "100 KB" else 1
                for who, port in (("cloche", ours), ("moto", moto)):
                    cpu = sum(server.cpu_times()[:2])
                    began = time.perf_counter()
                    got = rate(port, signed("GET", port, key), b"", seconds, many)
                    note(f"GET {name} {who}", got)
                    if who == "cloche":
                        used = sum(server.cpu_times()[:2]) - cpu
                        note(f"GET {name} CPU ms", 1e3 * used / got / (time.perf_counter() - began))
                    head = signed("PUT", port, key, body)
                    note(f"PUT {name} {who}", rate(port, head, body, seconds, many))
                note(f"PUT {name} disk", disk(folder, body, seconds))
    shutil.rmtree(folder)
    for name in ("GET 100 KB", "PUT 100 KB", "GET 100 MB", "PUT 100 MB"):
        values = {who: found.get(f"{name} {who}", []) for who in ("cloche", "moto", "disk")}
        ratios = [a / b for a, b in zip(values["cloche"], values["moto"], strict=True)]
        line = f"{name}: {statistics.median(values['cloche']):8.1f}/s"
        line += f"   moto {statistics.median(values['moto']):8.1f}/s   {spread(ratios)} of moto"
        if values["disk"]:
            beside = [a / b for a, b in zip(values["cloche"], values["disk"], strict=True)]
            line += (
                f"   write+fsync {statistics.median(values['disk']):.1f}/s, {spread(beside)} of it"
            )
        if f"{name} CPU ms" in found:
            line += f"   server CPU {statistics.median(found[f'{name} CPU ms']):.2f} ms"
        print(line)


def spread(values: list[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):.2f}x ({min(values):.2f} to {max(values):.2f})"


def channel_bench(rounds: int) -> None:
    """Lay out a channel of 10,000 objects: list and link, beside copying the same files."""
    folder = Path(tempfile.mkdtemp(prefix="bench-s3-"))
    store = Store.open(folder / "cloche.db")
    s3 = S3(store, folder / "blobs")
    fill(store, s3)
    ratios, ours = [], []
    for number in range(rounds):
        linked = timed(lambda n=number: lay_out(s3, folder / f"linked{n}", s3.link))
        copied = timed(lambda n=number: lay_out(s3, folder / f"copied{n}", copy))
        ours.append(linked)
        ratios.append(copied / linked)
    s3.close()
    store.close()
    shutil.rmtree(folder)
    print(
        f"channel of {FILES} files: {statistics.median(ours):.3f} s linked; "
        f"copying takes {spread(ratios)} as long"
    )


def fill(store: Store, s3: S3) -> None:
    """Make 10,000 objects without waiting for the disk each time."""
    data = os.urandom(20_000)
    etag = hashlib.md5(data).hexdigest()
    made = []
    for number in range(FILES):
        writer = s3.blobs.create()
        writer.write([data])
        key = f"train/{number % 100:03}/{number:06}.jpg"
        made.append(rows.ObjectRow("b", key, len(data), etag, 0, writer.blob, "{}"))
        writer.path.chmod(0o444)
        os.close(writer.fd)
    store.write_now(lambda c: [rows.put_object(c, one) for one in made])


def copy(found: StoredObject, to: Path) -> None:
    to.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(found.path, to)


def lay_out(s3: S3, folder: Path, place: Callable[..., object]) -> None:
    for found in s3.list("b", "train/"):
        place(found, folder / found.key)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    channel_bench(asked.rounds)
    requests_bench(asked.seconds, asked.rounds)


if __name__ == "__main__":
    main()
