"""The smallest policy for what was done."""

from typing import Any

import pytest

from cloche.services.iam.suggestion import Used, folded, general, policy

A = "arn:aws:sagemaker:us-east-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role/service-role/r"


def suggested(*done: tuple[str, str]) -> list[dict[str, Any]]:
    used = Used()
    for action, resource in done:
        used.add(action, resource, {})
    return list(policy(used)["Statement"])


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        # One name stays as it is, whatever it carries.
        ([f"{A}:endpoint/dog-2026-11-27-10-00-00-123"], None),
        ([f"{A}:endpoint/dog"], None),
        ([f"{A}:endpoint/dog", f"{A}:endpoint/cat"], None),
        # Several that differ in a time only.
        (
            [
                f"{A}:training-job/pytorch-training-2026-11-27-10-00-00-123",
                f"{A}:training-job/pytorch-training-2026-11-28-11-30-59-001",
            ],
            [f"{A}:training-job/pytorch-training-*"],
        ),
        ([f"{A}:training-job/hpo-20261127T101010", f"{A}:training-job/hpo-20261128T101010"],
         [f"{A}:training-job/hpo-*"]),
        ([f"{A}:training-job/t-001-0a1b2c3d", f"{A}:training-job/t-002-ffee0011"],
         [f"{A}:training-job/t-*-*"]),
        ([f"{A}:endpoint/a-1", f"{A}:endpoint/a-2", f"{A}:endpoint/b-1"],
         [f"{A}:endpoint/a-*", f"{A}:endpoint/b-1"]),
        # The account is no number of a name.
        ([f"{A}:endpoint/x", "arn:aws:sagemaker:us-east-1:999999999999:endpoint/x"], None),
        # Objects: one stays, several become their folder.
        (["arn:aws:s3:::b/data/a.jpg"], None),
        (["arn:aws:s3:::b/data/a.jpg", "arn:aws:s3:::b/data/b.jpg"], ["arn:aws:s3:::b/data/*"]),
        (["arn:aws:s3:::b/a.jpg", "arn:aws:s3:::b/b.jpg"], ["arn:aws:s3:::b/*"]),
        (["arn:aws:s3:::b", "arn:aws:s3:::c"], None),
        (["arn:aws:s3:::b/x/1", "arn:aws:s3:::b/x/*", "arn:aws:s3:::b/y/1"],
         ["arn:aws:s3:::b/x/*", "arn:aws:s3:::b/y/1"]),
        (["*", f"{A}:endpoint/x"], ["*"]),
    ],
)  # fmt: skip
def test_names_are_kept_until_several_were_used(
    resources: list[str], expected: list[str] | None
) -> None:
    assert general(resources) == sorted(resources if expected is None else expected)


def test_many_folders_of_one_folder_become_that_one() -> None:
    folders = {f"arn:aws:s3:::b/data/{n}/*" for n in range(120)}
    assert folded(folders | {"arn:aws:s3:::b/out/*"}) == {
        "arn:aws:s3:::b/data/*",
        "arn:aws:s3:::b/out/*",
    }
    assert folded({f"arn:aws:s3:::b/{n}/*" for n in range(9)}) == {"arn:aws:s3:::b/*"}
    few = {f"arn:aws:s3:::b/data/{n}/*" for n in range(5)}
    assert folded(few) == few
    buckets = {f"arn:aws:s3:::b{n}/*" for n in range(9)}  # no bucket stands for others
    assert folded(buckets) == buckets


def test_actions_with_the_same_resources_share_a_statement() -> None:
    assert suggested(
        ("sagemaker:InvokeEndpoint", f"{A}:endpoint/dog"),
        ("sagemaker:DescribeEndpoint", f"{A}:endpoint/dog"),
        ("sagemaker:ListEndpoints", "*"),
        ("logs:CreateLogStream", "*"),
    ) == [
        {"Effect": "Allow", "Action": "logs:CreateLogStream", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"],
            "Resource": f"{A}:endpoint/dog",
        },
        {"Effect": "Allow", "Action": "sagemaker:ListEndpoints", "Resource": "*"},
    ]


def test_a_role_is_passed_to_what_it_was_passed_to() -> None:
    used = Used()
    used.add("iam:PassRole", ROLE, {"iam:passedtoservice": "sagemaker.amazonaws.com"})
    used.add("iam:PassRole", f"{ROLE}2", {})
    assert policy(used)["Statement"] == [
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"{ROLE}2"},
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": ROLE,
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
    ]


def test_nothing_was_done() -> None:
    assert policy(Used()) == {"Version": "2012-10-17", "Statement": []}
