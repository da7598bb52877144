"""DescribeEndpoint: requests a second and CPU milliseconds a request, beside moto's server.

Two clients send the same signed request on kept connections, so that the server is what is
measured. Both servers hold one endpoint. moto checks no signatures; Cloche checks each.
"""

import io
import tarfile
import threading
import time
from typing import Any

from bench.harness import Runs, Server, Wire, cloche_server, compare, moto_server, recorded, title

ROUNDS, CLIENTS = 5, 2
SECONDS = 2.0  # a round
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:1.8-cpu-py36"
AIM_CPU_MS = 0.5
CREATED_WITHIN_S = 60.0


def main() -> None:
    with cloche_server() as cloche, moto_server() as moto:
        servers = (cloche, moto)
        for server in servers:
            make_endpoint(server)
        rates: Runs = {server.name: [] for server in servers}
        costs: Runs = {server.name: [] for server in servers}
        for number in range(ROUNDS):
            for server in servers if number % 2 else servers[::-1]:
                rate, cpu_ms = load(server)
                rates[server.name].append(rate)
                costs[server.name].append(cpu_ms)
    compare("DescribeEndpoint", "requests/s", rates, against="moto_server")
    aim = f"under {AIM_CPU_MS} ms"
    compare("DescribeEndpoint", "CPU ms a request", costs, against="moto_server", aim=aim)


def make_endpoint(server: Server) -> None:
    """Make the endpoint that is described; what it answers doesn't matter here."""
    sagemaker, s3 = server.client("sagemaker"), server.client("s3")
    s3.create_bucket(Bucket="bench-models")
    s3.put_object(Bucket="bench-models", Key="model.tar.gz", Body=model_archive())
    container = {"Image": IMAGE, "ModelDataUrl": "s3://bench-models/model.tar.gz"}
    sagemaker.create_model(
        ModelName="bench", ExecutionRoleArn=server.role(), PrimaryContainer=container
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "bench",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="bench", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="bench", EndpointConfigName="bench")
    deadline = time.monotonic() + CREATED_WITHIN_S
    while sagemaker.describe_endpoint(EndpointName="bench")["EndpointStatus"] == "Creating":
        if time.monotonic() > deadline:
            title(f"  ({server.name}: the endpoint is still being created)")
            return
        time.sleep(0.2)


def model_archive() -> bytes:
    """Return a model.tar.gz whose model takes no time to load."""
    code = b"def model_fn(folder):\n    return folder\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(code)
        tar.addfile(member, io.BytesIO(code))
    return archive.getvalue()


def load(server: Server) -> tuple[float, float]:
    """Return requests a second, and CPU milliseconds of the server a request."""
    return load_with(server, server.client("sagemaker"))


def load_with(server: Server, sagemaker: Any) -> tuple[float, float]:
    """Return the same of requests that a client signs."""
    request = recorded(sagemaker, "describe_endpoint", EndpointName="bench")
    counts = [0] * CLIENTS
    wires = [Wire(request) for _ in range(CLIENTS)]
    for wire in wires:
        wire.send()
    end = time.perf_counter() + SECONDS

    def client(number: int) -> None:
        while time.perf_counter() < end:
            wires[number].send()
            counts[number] += 1

    cpu_s, start = server.cpu_s(), time.perf_counter()
    threads: list[Any] = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s, used_s = time.perf_counter() - start, server.cpu_s() - cpu_s
    for wire in wires:
        wire.close()
    return sum(counts) / took_s, used_s * 1000 / max(1, sum(counts))


if __name__ == "__main__":
    main()
