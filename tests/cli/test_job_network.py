"""What a job reaches: the platform as its role, and of the outside what the proxy allows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import small_job
from cli_command import until

from cloche.testing.platform import start

pytestmark = pytest.mark.torch

SCRIPT = """
import os, urllib.error, urllib.request
import boto3

print("secrets:", [name for name in os.environ if "SECRET" in name or "TOKEN" in name])
print("straight:", boto3.client("sts").get_caller_identity()["Arn"])
sts = boto3.client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com")
print("by its name:", sts.get_caller_identity()["Arn"])
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ""
for host in ("127.0.0.2", "127.0.0.1", "10.0.0.1"):
    try:
        print(host, urllib.request.urlopen(f"http://{host}:PORT/", timeout=20).read().decode())
    except urllib.error.HTTPError as error:
        print(host, error.code, error.read().decode().strip())
"""


class Answer(BaseHTTPRequestHandler):
    """A service of the machine."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"was reached")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[int]:
    """Serve on every address of the machine."""
    server = HTTPServer(("0.0.0.0", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_job_is_its_role_and_reaches_what_is_allowed(tmp_path: Path) -> None:
    with serving() as port, start(tmp_path, allow_egress=("127.0.0.2/32",)) as platform:
        role = platform.role_arn
        script = SCRIPT.replace("PORT", str(port))
        sagemaker, logs = platform.client("sagemaker"), platform.client("logs")
        small_job.start(platform.client("s3"), sagemaker, role, script)
        until(lambda: small_job.status(sagemaker) != "InProgress", 90)
        said = small_job.log(logs)
        assert small_job.status(sagemaker) == "Completed", said
    session = f"arn:aws:sts::123456789012:assumed-role/{role.rsplit('/', 1)[1]}/SageMaker"
    assert "secrets: []" in said
    assert f"straight: {session}" in said and f"by its name: {session}" in said
    assert "127.0.0.2 was reached" in said
    for host in ("127.0.0.1", "10.0.0.1"):
        assert f"{host} 403 Cloche does not let user code reach {host}:{port}" in said
