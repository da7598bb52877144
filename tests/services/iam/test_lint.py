"""What is too wide, too old or unused, of an account with a little of everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from iam_client import FULL_ACCESS, client, made, policy, statement, trust

from cloche.events import AnsweredQuestion, Event
from cloche.services.iam.lint import IamFinding, findings
from cloche.services.iam.usage import ActionsUsed, usages
from cloche.testing.platform import ACCOUNT, Platform, start

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
USER = f"arn:aws:iam::{ACCOUNT}:user/"
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home")) as running:
        iam = client(running, "iam")
        narrow = policy(statement("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:*:*:endpoint/e"))
        for name in ("Narrow", "Wide", "Caller"):
            made(running, name, trust(Service="lambda.amazonaws.com"))
        iam.put_role_policy(RoleName="Narrow", PolicyName="p", PolicyDocument=narrow)
        iam.attach_role_policy(RoleName="Wide", PolicyArn=ADMIN)
        iam.attach_role_policy(RoleName="Caller", PolicyArn=FULL_ACCESS)
        iam.create_user(UserName="ann")
        iam.create_login_profile(UserName="ann", Password="Abcdef123456!")
        iam.create_access_key(UserName="ann")
        iam.create_user(UserName="bob")
        everything = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": everything})
        iam.put_user_policy(UserName="bob", PolicyName="most", PolicyDocument=document)
        yield running


def found(
    platform: Platform, after: timedelta = timedelta(), **used: ActionsUsed
) -> dict[str, list[str]]:
    """Return what is found, by who it is about."""
    now = datetime.now(UTC) + after
    by_arn = {f"{ROLE}{name}": usage for name, usage in used.items()}
    listed: dict[str, list[IamFinding]] = {}
    for each in findings(platform.app.identity, ACCOUNT, by_arn, now):
        listed.setdefault(each.about, []).append(each)
    return {about: [one.what for one in each] for about, each in listed.items()}


def invoked() -> ActionsUsed:
    usage = ActionsUsed()
    asked = (AnsweredQuestion(action="sagemaker:InvokeEndpoint", resource="arn:e"),)
    usage.add(
        Event(
            id="1",
            time_ms=1,
            account=ACCOUNT,
            region="us-east-1",
            service="sagemaker-runtime",
            operation="InvokeEndpoint",
            principal="arn:aws:sts::1:assumed-role/Caller/f",
            kind="assumed-role",
            role=f"{ROLE}Caller",
            asked=asked,
        )
    )
    return usage


def test_what_is_too_wide(platform: Platform) -> None:
    said = found(platform)
    assert said[f"{ROLE}Wide"] == ["AdministratorAccess allows every action on every resource."]
    assert said[f"{USER}bob"] == ["user_bob_most allows every action on every resource."]
    assert f"{ROLE}Narrow" not in said


def test_full_access_of_who_calls_one_endpoint(platform: Platform) -> None:
    (_, last) = found(platform, Caller=invoked())[f"{ROLE}Caller"]
    assert last == ("It may use 31 services and used 1 of them in the last 30 days: sagemaker.")
    assert f"{ROLE}Narrow" not in found(platform, Narrow=invoked())


def test_roles_that_do_nothing(platform: Platform) -> None:
    later = timedelta(days=31)
    assert found(platform, later)[f"{ROLE}Narrow"] == ["It did nothing in the last 30 days."]
    assert f"{ROLE}Narrow" not in found(platform, later, Narrow=invoked())
    assert f"{ROLE}Narrow" not in found(platform, timedelta(days=29))


def test_users(platform: Platform) -> None:
    iam = client(platform, "iam")
    assert found(platform)[f"{USER}ann"] == ["It has a console password and no MFA device."]
    (key,) = iam.list_access_keys(UserName="ann")["AccessKeyMetadata"]
    assert found(platform, timedelta(days=91))[f"{USER}ann"][1] == (
        f"Its access key {key['AccessKeyId']} is 91 days old."
    )


def test_root(platform: Platform) -> None:
    assert found(platform)[f"arn:aws:iam::{ACCOUNT}:root"] == [
        "Root has no MFA device.",
        "Root has access keys. Cloche makes them with the account, for its owner only.",
    ]


def test_what_was_used_is_read_once_for_all(platform: Platform) -> None:
    platform.client("sagemaker").list_endpoints()
    client(platform, "iam").list_roles()
    found = usages(platform.app.events, 0)
    by_name = {arn.rpartition("/")[2]: each for arn, each in found.items()}
    assert "iam:ListRoles" in by_name["Cloche-Administrator"].counts
    execution = next(each for name, each in by_name.items() if name.startswith("AmazonSageMaker"))
    assert execution.counts == {"sagemaker:ListEndpoints": 1}
