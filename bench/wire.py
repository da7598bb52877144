"""The gateway without sockets: CPU a call, and payloads a second, beside the client's own half.

Each call is one that boto3 recorded; the handlers answer at once, so that what is measured is
identify, parse, validate, serialize. The peer is what botocore spends to make the same request
and read the same response.
"""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config as BotoConfig

from bench.harness import compare, interleave, recorded
from cloche.core.clock import SystemClock
from cloche.core.config import Config, Home
from cloche.core.identity import Credential, Principal
from cloche.gateway import Gateway
from cloche.gateway.shapes import api
from cloche.operation import Handler, Operation, Service
from cloche.permissions import Permission
from cloche.records.store import Store
from cloche.services.iam import Policies

ROUNDS = 5
ACCOUNT = "111122223333"
ROOT = Principal(kind="root", account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:root", user_id="x")
KEY = Credential(access_key_id="AKIABENCH", secret_access_key="secret", principal=ROOT)
NOW = datetime(2021, 11, 28, 17, 26, tzinfo=UTC)
ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/dogs"
MIB = 1024 * 1024
PAYLOAD = os.urandom(64 * MIB)
PIECE = 64 * 1024  # as uvicorn hands a body on
AIMS = {"describe_endpoint": "under 0.5 ms with the server around it"}


@dataclass
class Keys:
    """The one key of the benchmark."""

    known: dict[str, Credential] = field(default_factory=lambda: {KEY.access_key_id: KEY})

    def find(self, access_key_id: str) -> Credential | None:
        """Return the key."""
        return self.known.get(access_key_id)


ENDPOINT = {
    "EndpointName": "dogs",
    "EndpointArn": ARN,
    "EndpointConfigName": "dogs",
    "EndpointStatus": "InService",
    "CreationTime": NOW,
    "LastModifiedTime": NOW,
    "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": 1}],
}
JOB = {
    "TrainingJobName": "dogs-2021-11-28",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/service-role/Training",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    "HyperParameters": {f"name{number}": "0.001" for number in range(10)},
    "Tags": [{"Key": "project", "Value": "dogs"}],
}
OBJECTS = [
    {"Key": f"train/{n:03}/{n}.jpg", "Size": 100_000, "ETag": '"x"', "LastModified": NOW}
    for n in range(1000)
]


async def put_object(call: Any, *, Body: Any, **_: Any) -> dict[str, Any]:
    """Read all of the payload."""
    async for _piece in Body:
        pass
    return {"ETag": '"x"'}


HANDLERS: dict[str, dict[str, Handler]] = {
    "sagemaker": {
        "DescribeEndpoint": lambda call, **_: ENDPOINT,
        "CreateTrainingJob": lambda call, **_: {"TrainingJobArn": ARN},
    },
    "s3": {
        "ListObjectsV2": lambda call, **_: {"Contents": OBJECTS, "IsTruncated": False},
        "GetObject": lambda call, **_: {"Body": b"x" * 1000, "ETag": '"x"', "LastModified": NOW},
        "PutObject": put_object,
    },
    "sts": {"GetCallerIdentity": lambda call: {"Arn": ARN, "Account": ACCOUNT, "UserId": "x"}},
}
# Service, operation, parameters, calls a round.
ASKED: tuple[tuple[str, str, dict[str, Any], int], ...] = (
    ("sagemaker", "describe_endpoint", {"EndpointName": "dogs"}, 400),
    ("sagemaker", "create_training_job", JOB, 400),
    ("sts", "get_caller_identity", {}, 400),
    ("s3", "get_object", {"Bucket": "bucket", "Key": "train/001/1.jpg"}, 400),
    ("s3", "list_objects_v2", {"Bucket": "bucket"}, 20),
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as folder:
        gateway = make_gateway(Path(folder))
        for service, operation, parameters, calls in ASKED:
            client = make_client(service)
            request = recorded(client, operation, **parameters)
            ours, answer = serve(gateway, request, calls)
            subjects = {
                "botocore, both ways": client_half(
                    client, operation, parameters, answer, calls // 4
                ),
                "the gateway": ours,
            }
            runs = interleave(ROUNDS, subjects)
            aim = AIMS.get(operation, "")
            compare(operation, "CPU ms a call", runs, against="botocore, both ways", aim=aim)
        payloads(gateway)


def make_gateway(folder: Path) -> Gateway:
    """Return a gateway whose handlers answer at once."""
    services = {}
    for name, handlers in HANDLERS.items():
        operations = {}
        for operation, handler in handlers.items():
            action = api(name).action(operation)
            assert action is not None
            names = action.input.by_name if action.input is not None else {}
            needed = (Permission(f"{name}:{operation}"),)
            operations[operation] = Operation(handler, needed, frozenset(names))
        services[name] = Service(name, operations, None)
    store = Store.open(folder / "cloche.db")
    return Gateway(
        services,
        Keys(),
        store=store,
        clock=SystemClock(),
        config=Config(home=Home(folder), account=ACCOUNT),
        authorizer=Policies(store),
    )


def make_client(service: str) -> Any:
    """Return a boto3 client of the address that the gateway believes to have."""
    return boto3.client(
        service,
        endpoint_url="http://127.0.0.1:4599",
        region_name="us-east-1",
        aws_access_key_id=KEY.access_key_id,
        aws_secret_access_key=KEY.secret_access_key,
        config=BotoConfig(proxies={}, retries={"total_max_attempts": 1}),
    )


def scope_of(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }


def headers_of(request: AWSPreparedRequest) -> dict[str, str]:
    """Return a request's headers by lower-cased names."""
    sent = {k.lower(): v for k, v in request.headers.items()}
    return {"host": "127.0.0.1:4599"} | {
        k: v.decode() if isinstance(v, bytes) else v for k, v in sent.items()
    }


def serve(
    gateway: Gateway, request: AWSPreparedRequest, calls: int
) -> tuple[Callable[[], float], tuple[int, dict[str, str], bytes]]:
    """Return a measurement of the gateway's half, and one answer: status, headers, body."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers = headers_of(request) | {"content-length": str(len(body))}
    path = request.url.removeprefix("http://127.0.0.1:4599") or "/"
    scope, sent = scope_of(request.method, path, headers), list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    async def many(count: int) -> None:
        for _ in range(count):
            sent.clear()
            await gateway(dict(scope), receive, send)

    def run() -> float:
        start = time.process_time()
        asyncio.run(many(calls))
        return (time.process_time() - start) / calls * 1000

    asyncio.run(many(1))
    status = sent[0]["status"]
    if status != 200:
        raise RuntimeError(f"{status}: {sent[1]['body']!r}")
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return run, (status, headers, sent[1]["body"])


def client_half(
    client: Any,
    operation: str,
    parameters: dict[str, Any],
    answer: tuple[int, Any, bytes],
    calls: int,
) -> Callable[[], float]:
    """Return a measurement of boto3: make the request, read the answer that is handed to it."""
    status, headers, body = answer

    class Raw:
        """What urllib3 would hand over."""

        def __init__(self) -> None:
            self.left = body

        def stream(self, *_: Any, **__: Any) -> Any:
            yield self.left

        def read(self, *_: Any, **__: Any) -> bytes:
            return self.left

    def run() -> float:
        events = client.meta.events
        answered = lambda request, **_: AWSResponse(request.url, status, headers, Raw())  # noqa: E731
        events.register_first("before-send.*.*", answered)
        start = time.process_time()
        for _ in range(calls):
            getattr(client, operation)(**parameters)
        used = time.process_time() - start
        events.unregister("before-send.*.*", answered)
        return used / calls * 1000

    return run


# ---------------------------------------------------------------------- payloads


def payloads(gateway: Gateway) -> None:
    """Measure how fast a PUT's payload passes, as S3 clients send it, beside SHA-256 alone."""
    plain = recorded(make_client("s3"), "put_object", Bucket="b", Key="k", Body=PAYLOAD)
    headers = headers_of(plain) | {"content-length": str(len(PAYLOAD))}
    headers.pop("expect", None)
    scope = scope_of("PUT", "/b/k", headers)

    async def once() -> None:
        pieces, sent = body(), list[Any]()

        async def receive() -> Any:
            return await anext(pieces, {"type": "http.request"})

        async def send(event: Any) -> None:
            sent.append(event)

        await gateway(dict(scope), receive, send)
        if sent[0]["status"] != 200:
            raise RuntimeError(sent[1]["body"])

    async def body() -> AsyncIterator[dict[str, Any]]:
        for at in range(0, len(PAYLOAD), PIECE):
            more = at + PIECE < len(PAYLOAD)
            yield {"type": "http.request", "body": PAYLOAD[at : at + PIECE], "more_body": more}

    def ours() -> float:
        start = time.perf_counter()
        asyncio.run(once())
        return len(PAYLOAD) / MIB / (time.perf_counter() - start)

    def bare() -> float:
        start = time.perf_counter()
        digest = hashlib.sha256()
        for at in range(0, len(PAYLOAD), PIECE):
            digest.update(PAYLOAD[at : at + PIECE])
        digest.hexdigest()
        return len(PAYLOAD) / MIB / (time.perf_counter() - start)

    runs = interleave(ROUNDS, {"SHA-256 alone": bare, "the gateway": ours})
    compare("A signed payload", "MiB/s", runs, against="SHA-256 alone")


if __name__ == "__main__":
    main()
