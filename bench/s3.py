"""S3: GET and PUT of 100 KB and 100 MB beside moto's server and the bare disk; channel set-up.

Requests are signed once and sent again and again over kept connections by a client that costs next
to nothing. moto checks no signature and keeps objects in memory, Cloche has them on the disk.
"""

import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.harness import (
    REGION,
    Runs,
    Server,
    cloche_server,
    compare,
    interleave,
    moto_server,
    timed,
)
from cloche.core.ids import blob_id
from cloche.records import objects as rows
from cloche.records.store import Store
from cloche.services.s3 import S3, StoredObject

BUCKET = "bench-objects"
SIZES = {"100 KB": 100_000, "100 MB": 100_000_000}
CONNECTIONS = {"100 KB": 8, "100 MB": 1}
ROUNDS, SECONDS = 3, 1.5
FILES, FILE_BYTES = 10_000, 20_000
AIMS = {"GET 100 KB": "above 1,500/s"}


def main() -> None:
    channel()
    folder = Path(tempfile.mkdtemp(prefix="bench-s3-"))
    with cloche_server() as cloche, moto_server() as moto:
        bodies = {name: os.urandom(size) for name, size in SIZES.items()}
        for server in (cloche, moto):
            client = server.client("s3")
            client.create_bucket(Bucket=BUCKET)
            for name, body in bodies.items():
                client.put_object(Bucket=BUCKET, Key=key(name), Body=body)
        for name, body in bodies.items():
            requests(cloche, moto, name, body, folder)
    shutil.rmtree(folder)


def requests(cloche: Server, moto: Server, name: str, body: bytes, folder: Path) -> None:
    """Measure one size."""
    many = CONNECTIONS[name]
    costs: Runs = {"GET": [], "PUT": []}

    def load(server: Server, method: str, content: bytes) -> float:
        head = signed(server, method, key(name), content)
        before, began = server.cpu_s(), time.perf_counter()
        rate = sent(server, head, content, many)
        if server is cloche:
            requests = rate * (time.perf_counter() - began)
            costs[method].append((server.cpu_s() - before) / requests * 1e3)
        return rate

    runs = interleave(ROUNDS, {one.name: partial(load, one, "GET", b"") for one in (cloche, moto)})
    compare(f"GET {name}", "/s", runs, against="moto_server", aim=AIMS.get(f"GET {name}", ""))
    subjects: dict[str, Callable[[], float]] = {
        one.name: partial(load, one, "PUT", body) for one in (cloche, moto)
    }
    runs = interleave(ROUNDS, {**subjects, "write and fsync": partial(disk, folder, body)})
    compare(f"PUT {name}", "/s", runs, against="moto_server")
    for method, values in costs.items():
        compare(f"{method} {name}", "CPU ms of the server", {"cloche": values}, against="cloche")


def key(name: str) -> str:
    """Return the key of the object of a size."""
    return name.replace(" ", "-")


def signed(server: Server, method: str, key: str, body: bytes) -> bytes:
    """Return a signed request as it goes over the wire, save the body."""
    request = AWSRequest(method, f"{server.address}/{BUCKET}/{key}", data=body)
    if body:
        request.headers["Content-Length"] = str(len(body))
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    lines = [f"{method} /{BUCKET}/{key} HTTP/1.1", f"Host: {urlsplit(server.address).netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """A connection that is made anew where the server closes it, as moto's does."""

    def __init__(self, server: Server) -> None:
        url = urlsplit(server.address)
        self.place = (url.hostname or "", url.port or 80)
        self.socket: socket.socket | None = None
        self.buffer = memoryview(bytearray(1 << 20))

    def exchange(self, head: bytes, body: bytes = b"") -> bool:
        """Send a request, read the answer to its end; tell whether it is 200.

        moto answers 500 to some of several GETs of one key at a time.
        """
        if self.socket is None:
            self.socket = socket.create_connection(self.place, timeout=60)
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
            self.close()
        return b" 200 " in top[:16]

    def receive(self, offset: int) -> int:
        assert self.socket is not None
        got = self.socket.recv_into(self.buffer[offset:])
        if not got:
            raise RuntimeError("the server closed the connection within an answer")
        return got

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def sent(server: Server, head: bytes, body: bytes, connections: int) -> float:
    """Return how many requests a second are answered with 200 over several connections."""
    until = time.perf_counter() + SECONDS
    counts = [0] * connections

    def work(index: int) -> None:
        connection = Connection(server)
        while time.perf_counter() < until:
            counts[index] += connection.exchange(head, body)
        connection.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def disk(folder: Path, data: bytes) -> float:
    """Return files written and fsynced a second, one after the other."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() < began + SECONDS:
        with (folder / "raw").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        count += 1
    return count / (time.perf_counter() - began)


# ---------------------------------------------------------------------- channels


def channel() -> None:
    """Lay out a channel of 10,000 objects: list and link, beside copying the same files."""
    folder = Path(tempfile.mkdtemp(prefix="bench-s3-"))
    store = Store.open(folder / "cloche.db")
    s3 = S3(store, folder / "blobs")
    s3.swept.result()  # what is made here before its rows are is an orphan to it
    fill(store, s3)
    names = iter(range(1000))
    ways: dict[str, Callable[[StoredObject, Path], None]] = {"linked": s3.link, "copied": copy}
    subjects = {
        name: timed(lambda place=place: lay_out(s3, folder / str(next(names)), place))
        for name, place in ways.items()
    }
    runs = interleave(ROUNDS, subjects)
    compare(f"channel of {FILES} files", "s", runs, against="copied", aim="under 0.5 s")
    s3.close()
    store.close()
    shutil.rmtree(folder)


def fill(store: Store, s3: S3) -> None:
    """Make the objects without waiting for the disk each time."""
    data = os.urandom(FILE_BYTES)
    etag = hashlib.md5(data).hexdigest()
    made = []
    for number in range(FILES):
        blob = blob_id()
        s3.blobs.path(blob).write_bytes(data)
        name = f"train/{number % 100:03}/{number:06}.jpg"
        made.append(rows.ObjectRow("b", name, len(data), etag, 0, blob, "{}"))
    store.write_now(lambda connection: [rows.put_object(connection, one) for one in made])


def lay_out(s3: S3, folder: Path, place: Callable[[StoredObject, Path], None]) -> None:
    """Put all objects into a folder."""
    for found in s3.list("b", "train/"):
        place(found, folder / found.key)


def copy(found: StoredObject, to: Path) -> None:
    """Copy one object into a folder."""
    to.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(found.path, to)
