"""Requests are refused until a policy allows them, in AWS's words: boto3 and the AWS CLI."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.testing.platform import Platform, start

ACCOUNT = "933869125920"
AWS_POLICIES = "arn:aws:iam::aws:policy/"
TRUST = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    },
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that is the account of the report, with a role that may do nothing yet."""
    with start(tmp_path_factory.mktemp("home"), account=ACCOUNT) as platform:
        for name in ("caller", "reader", "gone"):
            platform.client("iam", as_="admin").create_role(
                RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST)
            )
        yield platform


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = caught.value.response
    error, status = response["Error"], response["ResponseMetadata"]["HTTPStatusCode"]
    return error["Code"], error["Message"], status


def text(role: str, action: str, where: str = "") -> str:
    return (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{role}/cloche is not authorized to perform: "
        f"{action}{where} because no identity-based policy allows the {action} action"
    )


def attach(platform: Platform, role: str, policy: str) -> None:
    arn = f"{AWS_POLICIES}{policy}"
    platform.client("iam", as_="admin").attach_role_policy(RoleName=role, PolicyArn=arn)


def detach(platform: Platform, role: str, policy: str) -> None:
    arn = f"{AWS_POLICIES}{policy}"
    platform.client("iam", as_="admin").detach_role_policy(RoleName=role, PolicyArn=arn)


def cli(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **platform.environment("caller"), "AWS_PAGER": ""}
    command = [str(Path(sys.executable).with_name("aws")), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_report_s_refusal(aws: Platform, tmp_path: Path) -> None:
    runtime = aws.client("sagemaker-runtime", as_="caller")
    expected = (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/caller/cloche is not authorized to perform: "
        f"sagemaker:InvokeEndpoint on resource: arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/dogs"
        " because no identity-based policy allows the sagemaker:InvokeEndpoint action"
    )
    ask = {"EndpointName": "Dogs", "Body": b"{}"}
    assert refused(runtime.invoke_endpoint, **ask) == ("AccessDeniedException", expected, 403)
    invoke = ("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "Dogs")
    said = cli(aws, *invoke, "--body", "e30=", str(tmp_path / "out"))
    operation = "when calling the InvokeEndpoint operation"
    lead = f"An error occurred (AccessDeniedException) {operation}: {expected}"
    assert lead in said.stderr and said.returncode != 0
    attach(aws, "caller", "AmazonSageMakerFullAccess")  # control; the report's own way
    try:
        # Refused before the endpoint is looked up: now it is.
        code, found, _ = refused(runtime.invoke_endpoint, **ask)
        assert code == "ValidationError" and "not found" in found
        assert "not found" in cli(aws, *invoke, "--body", "e30=", str(tmp_path / "out")).stderr
    finally:
        detach(aws, "caller", "AmazonSageMakerFullAccess")
    assert refused(runtime.invoke_endpoint, **ask)[1] == expected


LOG_GROUP = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:g:log-stream:"


@pytest.mark.parametrize(
    ("service", "method", "ask", "code", "status", "action", "where", "policy"),
    [
        (
            *("sagemaker", "describe_endpoint", {"EndpointName": "E"}),
            *("AccessDeniedException", 400, "sagemaker:DescribeEndpoint"),
            f" on resource: arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/e",
            "AmazonSageMakerReadOnly",
        ),
        (
            *("logs", "filter_log_events", {"logGroupName": "g"}),
            *("AccessDeniedException", 400, "logs:FilterLogEvents"),
            f" on resource: {LOG_GROUP}",
            "CloudWatchLogsReadOnlyAccess",
        ),
        (
            *("iam", "get_role", {"RoleName": "reader"}),
            *("AccessDenied", 403, "iam:GetRole"),
            f" on resource: arn:aws:iam::{ACCOUNT}:role/reader",
            "IAMReadOnlyAccess",
        ),
        (
            *("s3", "list_buckets", {}),
            *("AccessDenied", 403, "s3:ListAllMyBuckets", "", "AmazonS3ReadOnlyAccess"),
        ),
    ],
)
def test_each_family_refuses_in_its_own_words(
    aws: Platform,
    service: str,
    method: str,
    ask: dict[str, Any],
    code: str,
    status: int,
    action: str,
    where: str,
    policy: str,
) -> None:
    call = getattr(aws.client(service, as_="caller"), method)
    assert refused(call, **ask) == (code, text("caller", action, where), status)
    attach(aws, "caller", policy)  # control
    try:
        call(**ask)
    except ClientError as error:
        assert error.response["Error"]["Code"] != code
    finally:
        detach(aws, "caller", policy)
    assert refused(call, **ask)[0] == code


def test_cloudwatch_refuses_with_the_code_of_its_first_protocol(aws: Platform) -> None:
    code, message, status = refused(aws.client("cloudwatch", as_="caller").list_metrics)
    assert (code, status) == ("AccessDenied", 403)
    assert message.endswith("no identity-based policy allows the cloudwatch:ListMetrics action")
    aws.client("cloudwatch").list_metrics()  # control: the execution role


def test_s3_says_that_there_is_no_such_bucket_before_it_refuses(aws: Platform) -> None:
    owner, stranger = aws.client("s3"), aws.client("s3", as_="caller")
    owner.create_bucket(Bucket="known")
    missing = {"Bucket": "unknown"}
    assert refused(stranger.list_objects_v2, **missing)[::2] == ("NoSuchBucket", 404)
    assert refused(stranger.get_object, **missing, Key="k")[::2] == ("NoSuchBucket", 404)
    assert refused(stranger.head_bucket, **missing)[::2] == ("404", 404)
    assert refused(stranger.head_bucket, Bucket="known")[::2] == ("403", 403)
    assert refused(stranger.list_objects_v2, Bucket="known") == (
        "AccessDenied",
        text("caller", "s3:ListBucket", ' on resource: "arn:aws:s3:::known"'),
        403,
    )
    created = refused(stranger.create_bucket, Bucket="unknown")
    assert created[0] == "AccessDenied"


def test_a_missing_key_is_hidden_from_who_may_not_list(aws: Platform) -> None:
    owner, reader = aws.client("s3"), aws.client("s3", as_="reader")
    owner.create_bucket(Bucket="hiding")
    owner.put_object(Bucket="hiding", Key="here", Body=b"x")
    ask = {"Bucket": "hiding", "Key": "missing"}
    assert refused(reader.get_object, **ask)[1] == text(
        "reader", "s3:GetObject", ' on resource: "arn:aws:s3:::hiding/missing"'
    )
    assert refused(reader.get_object, Bucket="hiding", Key="here")[0] == "AccessDenied"
    attach(aws, "reader", "AmazonS3ReadOnlyAccess")
    assert refused(reader.get_object, **ask)[0] == "NoSuchKey"  # it may list
    assert reader.get_object(Bucket="hiding", Key="here")["Body"].read() == b"x"


def test_the_keys_of_a_role_that_is_gone_are_none(aws: Platform) -> None:
    session = aws.client("sts", as_="gone")
    session.get_caller_identity()
    aws.client("iam", as_="admin").delete_role(RoleName="gone")
    assert refused(session.get_caller_identity)[0] == "InvalidClientTokenId"


def test_whom_the_owner_may_be(aws: Platform) -> None:
    def arn(name: str) -> str:
        found: str = aws.client("sts", as_=name).get_caller_identity()["Arn"]
        return found

    assert arn("admin") == f"arn:aws:sts::{ACCOUNT}:assumed-role/Cloche-Administrator/cloche"
    assert (
        arn("role/reader") == arn("READER") == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/cloche"
    )
    aws.client("iam", as_="admin").create_user(UserName="ann", Path="/staff/")
    assert arn("ann") == arn("user/Ann") == f"arn:aws:iam::{ACCOUNT}:user/staff/ann"
    assert arn("root") == f"arn:aws:iam::{ACCOUNT}:root"
    assert ":assumed-role/AmazonSageMaker-ExecutionRole-" in arn("role")
    for unknown in ("nobody", "user/reader", "../x", "<root>", ""):
        with pytest.raises(LookupError) as said:
            aws.client("sts", as_=unknown)
        assert "admin (Cloche-Administrator), root; roles: " in said.value.args[0]
        assert "reader" in said.value.args[0] and "<root>" not in said.value.args[0][40:]


def test_the_execution_role_may_do_what_a_course_s_role_may(aws: Platform) -> None:
    aws.client("s3").create_bucket(Bucket="any-name-at-all")
    aws.client("iam").list_roles()
    for method, ask in (
        ("create_role", {"RoleName": "x", "AssumeRolePolicyDocument": json.dumps(TRUST)}),
        ("attach_role_policy", {"RoleName": "reader", "PolicyArn": f"{AWS_POLICIES}IAMFullAccess"}),
    ):
        assert refused(getattr(aws.client("iam"), method), **ask)[0] == "AccessDenied"
    who = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/Cloche-Administrator", "RoleSessionName": "me"}
    assert refused(aws.client("sts").assume_role, **who)[0] == "AccessDenied"
    aws.client("sts", as_="admin").assume_role(**who)  # control
    assert refused(aws.client("sts", as_="root").assume_role, **who) == (
        *("AccessDenied", "Roles may not be assumed by root accounts."),
        403,
    )
