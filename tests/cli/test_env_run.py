"""`cloche env` and `cloche run`: AWS's clients find the platform, unchanged."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cli_command import Cloche

from cloche.cli.aws_client import AwsClient
from cloche.cli.variables import environment, no_proxy
from cloche.core import home as homes
from cloche.core.config import Home

SDK = """
import json, sagemaker
session = sagemaker.Session()
print(json.dumps({"bucket": session.default_bucket(), "role": sagemaker.get_execution_role()}))
"""
STS = """
import boto3, json, os
# The address that the SDKs hard-code, over TLS, through the proxy.
sts = boto3.client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com")
# Nor do other services need an endpoint: https://NAME.s3.amazonaws.com, in signed chunks.
del os.environ["AWS_ENDPOINT_URL"]
s3 = boto3.client("s3")
s3.create_bucket(Bucket="by-its-name")
body = os.urandom(20_000_000)
s3.put_object(Bucket="by-its-name", Key="k", Body=body)
same = s3.get_object(Bucket="by-its-name", Key="k")["Body"].read() == body
print(json.dumps([sts.get_caller_identity()["Arn"], same]))
"""


def client_of(cloche: Cloche) -> AwsClient:
    home = Home(cloche.home)
    server = homes.read_server(home)
    assert server is not None
    return AwsClient(home, server)


def test_the_sdks_default_calls_work_unpatched(up: Cloche) -> None:
    said = up("run", "--", sys.executable, "-c", SDK).stdout
    printed = json.loads(said.strip().splitlines()[-1])
    account = json.loads((up.home / "credentials.json").read_text())["account"]
    assert printed["bucket"] == f"sagemaker-us-east-1-{account}"
    assert printed["role"].startswith(
        f"arn:aws:iam::{account}:role/service-role/AmazonSageMaker-ExecutionRole-"
    )
    assert "TelemetryOptOut" not in said or "Applied value" in said


def test_the_hard_coded_sts_address_is_answered(up: Cloche) -> None:
    arn, same = json.loads(up("run", "--", sys.executable, "-c", STS).stdout)
    assert same
    assert ":assumed-role/AmazonSageMaker-ExecutionRole-" in arn and arn.endswith("/SageMaker")


def test_the_shell_evaluates_env(up: Cloche) -> None:
    script = (
        'export AWS_PROFILE=none AWS_ENDPOINT_URL_S3=http://127.0.0.1:1; eval "$(cloche env)"; '
        'env | grep -E "^AWS_PROFILE|^AWS_ENDPOINT_URL_S3"; aws sts get-caller-identity'
    )
    # `cloche` is beside this Python; the shell's own settings are seen by `cloche env`.
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        env=up.environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Arn"].endswith("/SageMaker")


def test_whom_the_owner_may_be(up: Cloche) -> None:
    who = ("aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text")
    admin = up("run", "--as", "admin", "--", *who).stdout
    assert admin.endswith(":assumed-role/Cloche-Administrator/cloche\n")
    assert up("run", "--as", "role/cloche-administrator", "--", *who).stdout == admin
    assert up("run", "--as", "root", "--", *who).stdout.endswith(":root\n")
    said = up("run", "--as", "ann", "--", *who, code=1).stderr
    assert "--as ann: There is no role or user ann. There are: role (the execution role), " in said
    evaluated = up("env", "--as", "ann", code=1)
    assert evaluated.stdout.endswith("false\n") and "There is no role or user ann." in (
        evaluated.stderr
    )


def test_exit_codes_are_the_commands(up: Cloche) -> None:
    up("run", "--", "sh", "-c", "exit 7", code=7)
    assert "no-such-command: command not found" in up("run", "no-such-command", code=127).stderr
    assert "can't be run" in up("run", "--", "/etc", code=126).stderr
    for dashes in ((), ("--",)):
        assert up("run", *dashes, "echo", "--home", "--help").stdout == "--home --help\n"


def test_without_a_server_it_says_how_to_start_one(cloche: Cloche) -> None:
    for command in (("env",), ("run", "--", "true")):
        said = cloche(*command, code=3).stderr
        assert "Cloche is not up" in said and "Start it with: cloche up" in said
    other = cloche("status", "--home", "/nowhere/at-all", code=3).stderr
    assert "cloche up --home /nowhere/at-all" in other


def test_keys_of_the_environment(up: Cloche) -> None:
    client = client_of(up)
    role = environment(client, "role", {}).exports
    assert role["AWS_ACCESS_KEY_ID"].startswith("ASIA") and role["AWS_SESSION_TOKEN"]
    assert environment(client, "role", {}).exports["AWS_ACCESS_KEY_ID"] != role["AWS_ACCESS_KEY_ID"]
    root = environment(client, "root", {"AWS_SESSION_TOKEN": "old"})
    assert root.exports["AWS_ACCESS_KEY_ID"].startswith("AKIA")
    assert "AWS_SESSION_TOKEN" in root.unset
    assert root.applied({"AWS_SESSION_TOKEN": "old", "X": "1"}).get("AWS_SESSION_TOKEN") is None
    lower = environment(client, "root", {"https_proxy": "http://corp:1"}).exports
    assert lower["https_proxy"] == lower["HTTPS_PROXY"] == client.server.proxy
    assert Path(role["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text().endswith("Out: true\n")
    assert Path(role["AWS_CA_BUNDLE"]).exists()


def test_the_shells_exceptions_from_proxies_are_kept(up: Cloche) -> None:
    shell = {"NO_PROXY": "*, .corp , sts.amazonaws.com,localhost,10.1.1.1"}
    assert no_proxy(client_of(up).server.address, shell) == "127.0.0.1,localhost,.corp,10.1.1.1"


def test_sessions_are_for_the_owner_alone(up: Cloche) -> None:
    address = client_of(up).server.address
    for method, headers, code in (
        ("POST", {}, 403),
        ("POST", {"Authorization": "Bearer wrong"}, 403),
        ("POST", {"Authorization": "Bearer \xe9"}, 403),
        ("GET", {}, 403),
    ):
        request = urllib.request.Request(
            f"{address}/_cloche/session", method=method, headers=headers
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == code
    with pytest.raises(urllib.error.HTTPError) as outside:
        urllib.request.urlopen(f"{address}/_cloche/credentials", timeout=10)
    assert outside.value.code == 403
