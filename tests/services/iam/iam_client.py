"""Clients, refusals and policies that the tests of IAM share."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloche.cli.variables import Identity
from cloche.testing.platform import Platform

FULL_ACCESS = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
S3_FULL_ACCESS = "arn:aws:iam::aws:policy/AmazonS3FullAccess"


def statement(action: str = "s3:GetObject", resource: str = "*", **more: Any) -> dict[str, Any]:
    """Return a statement that allows an action."""
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def policy(*statements: dict[str, Any]) -> str:
    """Return a policy of statements; without any, one that allows s3:GetObject."""
    body = list(statements or (statement(),))
    return json.dumps({"Version": "2012-10-17", "Statement": body})


def trust(**principal: Any) -> dict[str, Any]:
    """Return a trust policy that lets a principal in."""
    one = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [one]}


@cache
def client(platform: Platform, service: str, as_: Identity = "admin") -> Any:
    """Return a client; making one takes longer than most requests."""
    return platform.client(service, as_=as_)


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[int, str, str]:
    """Return the status, code and message that a call is refused with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def made(platform: Platform, name: str, policy: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a new role with this trust policy."""
    text = json.dumps(policy)
    role: dict[str, Any] = client(platform, "iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=text, **more
    )["Role"]
    return role
