"""What tests of users share: clients with a user's keys, refusals, codes."""

from collections.abc import Callable
from typing import Any

import boto3
import pyotp
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cloche.core.clock import to_ms
from cloche.testing.platform import Platform


def refused(call: Callable[..., Any], **parameters: Any) -> tuple[int, str, str]:
    """Return status, code and text of a call that is refused."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def with_keys(platform: Platform, service: str, keys: dict[str, Any]) -> Any:
    """Return a client that signs with these keys."""
    return boto3.client(
        service,
        endpoint_url=platform.address,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys.get("SessionToken"),
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def codes(platform: Platform, seed: str, *steps: int) -> list[str]:
    """Return a device's codes, so many steps of 30 s from now."""
    now = to_ms(platform.app.clock.now()) // 30_000
    totp = pyotp.TOTP(seed)
    return [totp.generate_otp(now + step) for step in steps]


ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"


def user_with_keys(iam: Any, name: str, *policies: str) -> dict[str, Any]:
    """Return the keys of a new user with these managed policies."""
    iam.create_user(UserName=name)
    for arn in policies:
        iam.attach_user_policy(UserName=name, PolicyArn=arn)
    keys: dict[str, Any] = iam.create_access_key(UserName=name)["AccessKey"]
    return keys


def device_of(platform: Platform, iam: Any, user: str, name: str) -> tuple[str, str]:
    """Return serial number and seed of a device that is enabled for a user."""
    made = iam.create_virtual_mfa_device(VirtualMFADeviceName=name)["VirtualMFADevice"]
    seed, serial = made["Base32StringSeed"].decode(), made["SerialNumber"]
    first, second = codes(platform, seed, -2, -1)
    iam.enable_mfa_device(
        UserName=user,
        SerialNumber=serial,
        AuthenticationCode1=first,
        AuthenticationCode2=second,
    )
    return serial, seed
