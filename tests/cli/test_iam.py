"""`cloche iam`, in a terminal of its own."""

import contextlib
import json
import re
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cli_command import Cloche

from cloche.cli.aws_client import AwsClient
from cloche.core import home as homes
from cloche.core.config import Home

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}],
    }
)


def lines(up: Cloche, *options: str) -> list[list[str]]:
    """Return the columns of what is shown."""
    shown = up("iam", "who", *options).stdout.splitlines()
    return [re.split(r" {2,}", line.strip()) for line in shown if line.strip()]


def test_who_shows_calls_the_oldest_first(up: Cloche) -> None:
    s3 = up.client("s3")
    s3.create_bucket(Bucket="who")
    s3.put_object(Bucket="who", Key="a/b", Body=b"1")
    head, *rows = lines(up, "--action", "s3:")
    assert head == ["time", "who", "call", "answer", "on"]
    assert [row[1:] for row in rows[-2:]] == [
        ["root", "s3:CreateBucket", "ok", "arn:aws:s3:::who"],
        ["root", "s3:PutObject", "ok", "arn:aws:s3:::who/a/b"],
    ]
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d", rows[-1][0])


def test_how_a_call_failed(up: Cloche) -> None:
    iam = up.client("iam")
    with contextlib.suppress(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="nobody")
    assert lines(up, "--action", "GetRole")[-1][2:] == [
        "iam:GetRole",
        "NoSuchEntity",
        "arn:aws:iam::" + up.client("sts").get_caller_identity()["Account"] + ":role/nobody",
    ]


def test_a_limit_says_how_to_see_more(up: Cloche) -> None:
    for _ in range(3):
        up.client("sts").get_caller_identity()
    rows = lines(up, "--limit", "2", "--action", "GetCallerIdentity")
    assert len(rows) == 4
    assert rows[-1] == ["These are the newest 2; more with: --limit, --since, --principal"]


def test_a_file_name_is_no_command_for_the_terminal(up: Cloche) -> None:
    s3 = up.client("s3")
    s3.create_bucket(Bucket="names")
    s3.put_object(Bucket="names", Key="a\x1b[31mred[bold]", Body=b"1")
    shown = up("iam", "who", "--action", "s3:PutObject").stdout
    assert "\x1b[31m" not in shown
    assert "names/a\ufffd[31mred[bold]" in "".join(shown.split("\n"))


def test_nothing_of_that_time(up: Cloche) -> None:
    shown = up("iam", "who", "--principal", "no-such-user").stdout
    assert shown == "Nothing was asked for in that time that fits.\n"


def test_a_span_that_is_none(up: Cloche) -> None:
    done = up("iam", "who", "--since", "yesterday", code=2)
    assert "'yesterday' is not a span of time such as 15m, 2h or 7d." in done.stderr


def test_no_server(cloche: Cloche) -> None:
    assert "Cloche is not up" in cloche("iam", "who", code=None).stderr


# ---------------------------------------------------------------------- suggest


def as_role(up: Cloche, service: str) -> Any:
    """Return a boto3 client with a session of the execution role."""
    home = Home(up.home)
    server = homes.read_server(home)
    assert server is not None
    keys = AwsClient(home, server).session()
    return boto3.client(
        service,
        endpoint_url=server.address,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["Token"],
    )


def role_name(up: Cloche) -> str:
    roles = up.client("iam").list_roles()["Roles"]
    return next(r["RoleName"] for r in roles if r["RoleName"].startswith("AmazonSageMaker-Exec"))


def test_suggest_writes_what_a_role_did(up: Cloche) -> None:
    up.client("s3").create_bucket(Bucket="suggest")
    s3 = as_role(up, "s3")
    for key in ("in/a", "in/b", "one"):
        s3.put_object(Bucket="suggest", Key=key, Body=b"1")
    s3.get_object(Bucket="suggest", Key="one")
    name = role_name(up)
    done = up("iam", "suggest", name, "--since", "5m")
    assert json.loads(done.stdout) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": "arn:aws:s3:::suggest/one",
            },
            {
                "Effect": "Allow",
                "Action": "s3:PutObject",
                "Resource": ["arn:aws:s3:::suggest/in/*", "arn:aws:s3:::suggest/one"],
            },
        ],
    }
    assert done.stderr.splitlines() == [
        f"2 actions, from 4 events of {name}.",
        "- AmazonSageMakerFullAccess (attached)",
        "- AmazonS3FullAccess (attached)",
        "+ cloche-suggested (inline, as above)",
        f"Nothing was changed. To have it so: cloche iam suggest {name} --apply",
    ]


def test_suggest_for_a_role_that_is_not_there(up: Cloche) -> None:
    done = up("iam", "suggest", "nobody", code=1)
    assert done.stderr.startswith("There is no role nobody. There are: ")
    assert role_name(up) in done.stderr


def test_suggest_for_a_role_that_did_nothing(up: Cloche) -> None:
    iam = up.client("iam")
    iam.create_role(RoleName="lazy", AssumeRolePolicyDocument=TRUST)
    done = up("iam", "suggest", "lazy", code=1)
    iam.delete_role(RoleName="lazy")
    assert done.stderr.startswith("lazy did nothing in that time that was allowed: there is noth")


# ---------------------------------------------------------------------- explain


def refused(up: Cloche) -> str:
    """Have the execution role refused, and return the id of the request."""
    iam = as_role(up, "iam")
    with pytest.raises(ClientError) as error:
        iam.create_role(RoleName="mine", AssumeRolePolicyDocument=TRUST)
    assert error.value.response["Error"]["Code"] == "AccessDenied"
    headers = error.value.response["ResponseMetadata"]["HTTPHeaders"]
    return str(headers["x-cloche-explain"])


@pytest.mark.parametrize("by", ["last", "id"])
def test_explain_says_why_and_what_would_allow_it(up: Cloche, by: str) -> None:
    id = refused(up)
    account = up.client("sts").get_caller_identity()["Account"]
    done = up("iam", "explain", id if by == "id" else "last")
    role, arn = role_name(up), f"arn:aws:iam::{account}:role/mine"
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"arn:aws:sts::{account}:assumed-role/{role}/SageMaker asked for iam:CreateRole:"
    )
    assert lines[3] == (
        f"iam:CreateRole on {arn}: refused, because no identity-based policy allows it"
    )
    assert re.fullmatch(
        r"  Of \d+ statements that apply, none speaks of iam:CreateRole\.", lines[4]
    )
    assert json.loads("\n".join(lines[6:])) == {
        "Effect": "Allow",
        "Action": "iam:CreateRole",
        "Resource": arn,
    }
    assert done.stderr.splitlines() == [
        "Either give it that statement, or act as somebody who may:",
        f"  cloche iam explain {id} --apply {role}",
        "  cloche run --as admin -- …    cloche env --as admin",
    ]


def test_explain_applies_the_statement(up: Cloche) -> None:
    id, role, iam = refused(up), role_name(up), up.client("iam")
    said = up("iam", "explain", id, "--apply", role).stderr.splitlines()
    policy = "cloche-allow-iam-CreateRole"
    assert said[0] == f"{role} has the inline policy {policy} now. To remove it:"
    as_role(up, "iam").create_role(RoleName="mine", AssumeRolePolicyDocument=TRUST)
    assert "The current policies allow it." in up("iam", "explain", id).stdout
    iam.delete_role(RoleName="mine")
    iam.delete_role_policy(RoleName=role, PolicyName=policy)
    refused(up)


def test_explain_a_request_that_is_not_there(up: Cloche) -> None:
    done = up("iam", "explain", "00000000-0000", code=1)
    assert done.stderr == "There is no request 00000000-0000.\n"


def test_explain_when_nothing_was_refused(cloche: Cloche) -> None:
    cloche.up()
    assert cloche("iam", "explain", code=1).stderr == "Nothing was refused yet.\n"
