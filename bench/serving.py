"""InvokeEndpoint beside the replica itself: what the platform adds to an invocation.

One client, one request at a time, on kept connections: over HTTP to the platform, and over the
replica's own socket. The model answers at once, so that the difference is the platform's.
"""

import io
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.harness import Server, Wire, cloche_server, compare, interleave, recorded, title

ROUNDS, REQUESTS = 5, 400
AIM = "under 1 ms of CPU added"
READY_WITHIN_S = 60.0
SIZES = {"2 bytes": 2, "100 KB": 100_000, "6 MB": 6_000_000}
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
CODE = b"""
def model_fn(folder): return folder
def transform_fn(model, body, content_type, accept): return str(len(body))
"""


def main() -> None:
    with cloche_server() as server:
        deploy(server)
        replica = replica_socket(server)
        try:
            for size, length in SIZES.items():
                measure(server, replica, size, b"x" * length, REQUESTS if length < 1e6 else 20)
        finally:
            server.client("sagemaker").delete_endpoint(EndpointName="bench")
            until(lambda: not server.client("sagemaker").list_endpoints()["Endpoints"])


def measure(server: Server, replica: Path, size: str, body: bytes, requests: int) -> None:
    """Compare latencies, and print the platform's CPU time a request."""
    request = recorded(
        server.client("sagemaker-runtime"),
        "invoke_endpoint",
        EndpointName="bench",
        Body=body,
        ContentType="image/jpeg",
    )
    del request.headers["host"]  # the wire writes its own
    through, direct = Wire(request), Direct(replica, body)
    cpu: list[float] = []

    def platform() -> float:
        used = server.cpu_s()
        latency = each(through.send, requests)
        cpu.append((server.cpu_s() - used) / requests * 1000)
        return latency

    runs = interleave(
        ROUNDS,
        {"the replica itself": lambda: each(direct.send, requests), "InvokeEndpoint": platform},
    )
    compare(f"Invocation of {size}", "ms", runs, against="the replica itself")
    cpu.sort()
    title(f"  platform's CPU: {cpu[len(cpu) // 2]:.3f} ms an invocation   (aim: {AIM})")
    through.close()
    direct.socket.close()


def each(send: Callable[[], bytes], requests: int) -> float:
    """Return the milliseconds a request took."""
    start = time.perf_counter()
    for _ in range(requests):
        send()
    return (time.perf_counter() - start) / requests * 1000


class Direct(Wire):
    """The same request over a replica's own socket."""

    def __init__(self, path: Path, body: bytes) -> None:
        head = f"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Length: {len(body)}\r\n"
        self.bytes = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + body
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.rest = b""


def deploy(server: Server) -> None:
    """Bring an endpoint into service."""
    sagemaker, s3 = server.client("sagemaker"), server.client("s3")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as members:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(CODE)
        members.addfile(info, io.BytesIO(CODE))
    s3.create_bucket(Bucket="bench-models")
    s3.put_object(Bucket="bench-models", Key="model.tar.gz", Body=archive.getvalue())
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bench-models/model.tar.gz"}
    sagemaker.create_model(
        ModelName="bench", ExecutionRoleArn=server.role(), PrimaryContainer=container
    )
    variant: dict[str, Any] = {
        "VariantName": "AllTraffic",
        "ModelName": "bench",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="bench", ProductionVariants=[variant])
    start = time.perf_counter()
    sagemaker.create_endpoint(EndpointName="bench", EndpointConfigName="bench")
    describe = sagemaker.describe_endpoint
    until(lambda: describe(EndpointName="bench")["EndpointStatus"] == "InService")
    title(f"CreateEndpoint to InService (no framework): {time.perf_counter() - start:.2f} s")


def replica_socket(server: Server) -> Path:
    """Return the one replica's socket, in the home folder where the server has its database."""
    files = [Path(file.path) for file in psutil.Process(server.pid).open_files()]
    home = next(file.parent for file in files if file.name == "cloche.db")
    return next(home.glob("runs/endpoint-*/serve-model.sock"))


def until(condition: Callable[[], bool]) -> None:
    """Wait; RuntimeError when it takes too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the endpoint did not get there")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
