"""Condition keys: what is nearer goes first, and what nobody asks for is never worked out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from cloche.core.authorization import (
    Actor,
    Context,
    Decision,
    PolicyKind,
    Question,
    Statement,
    Values,
    principal_keys,
    refusal,
)
from cloche.core.clock import ManualClock, to_ms
from cloche.core.identity import Principal, Session

ROLE = Principal(
    kind="assumed-role",
    account="123456789012",
    arn="arn:aws:sts::123456789012:assumed-role/r/s",
    user_id="AROA:s",
    role_arn="arn:aws:iam::123456789012:role/r",
)


@dataclass
class Found:
    """Gives values, and counts how often."""

    values: Mapping[str, Values]
    asked: int = 0

    def __call__(self) -> Mapping[str, Values]:
        self.asked += 1
        return self.values


@dataclass
class Recorder:
    """Allows everything, and keeps the questions."""

    questions: list[Question] = field(default_factory=list)

    def decide(self, question: Question) -> Decision:
        self.questions.append(question)
        return Decision("allowed")


def test_a_value_is_looked_up_when_it_is_asked_for_and_once() -> None:
    tags, owner = Found({"aws:resourcetag/team": "a"}), Found({"s3:owner": "1"})
    context = Context({"s3:prefix": "x"}, {"aws:resourcetag/": tags, "s3:owner": owner})
    assert context["s3:prefix"] == "x" and (tags.asked, owner.asked) == (0, 0)
    assert [context["aws:resourcetag/team"] for _ in range(3)] == ["a"] * 3
    assert "aws:resourcetag/other" not in context and (tags.asked, owner.asked) == (1, 0)
    assert dict(context) == {"s3:prefix": "x", "aws:resourcetag/team": "a", "s3:owner": "1"}
    assert (tags.asked, owner.asked) == (1, 1)


def test_what_is_nearer_goes_first_through_three_layers() -> None:
    lowest = Found({"low": "3", "each": "3"})
    middle = Context({"middle": "2", "each": "2"})
    made = Context({"near": "1", "each": "1"}).over(lambda: middle)
    made = made.over(lambda: Context(lowest()))
    assert (made["near"], made["middle"], made["each"]) == ("1", "2", "1")
    assert lowest.asked == 0
    assert made["low"] == "3" and "none" not in made
    assert dict(made) == {"near": "1", "middle": "2", "each": "1", "low": "3"} and len(made) == 4


def test_what_is_true_of_every_request_is_worked_out_once_if_at_all() -> None:
    keys, recorder = Found({"aws:sourceip": "10.0.0.1"}), Recorder()
    actor = Actor(ROLE, recorder, ManualClock().now, keys)
    for number in range(3):
        actor.authorize("s3:GetObject", f"arn:aws:s3:::b/{number}", Context({"s3:prefix": "p"}))
    assert keys.asked == 0
    for question in recorder.questions:
        assert question.context["aws:sourceip"] == "10.0.0.1"
        assert question.context["aws:principalarn"] == ROLE.role_arn
        assert question.context["s3:prefix"] == "p"
        assert question.context["aws:currenttime"]
    assert keys.asked == 1


def test_what_a_session_carries_is_true_of_all_that_it_asks() -> None:
    clock = ManualClock()
    session = Session(
        issued_at_ms=to_ms(clock.now()),
        tags={"Team": "dogs"},
        source_identity="ann",
        mfa_at_ms=to_ms(clock.now()),
    )
    clock.advance(90)
    said = principal_keys(replace(ROLE, session=session), clock.now)
    assert said == {
        "aws:principaltype": "AssumedRole",
        "aws:principalaccount": "123456789012",
        "aws:principalarn": ROLE.role_arn,
        "aws:userid": "AROA:s",
        "aws:tokenissuetime": "2021-11-28T17:26:00Z",
        "aws:multifactorauthpresent": "true",
        "aws:multifactorauthage": "90",
        "aws:sourceidentity": "ann",
        "aws:principaltag/team": "dogs",
    }


def test_a_session_without_mfa_says_so_and_long_term_keys_say_nothing() -> None:
    clock = ManualClock()
    bare = principal_keys(replace(ROLE, session=Session(issued_at_ms=0)), clock.now)
    assert bare["aws:multifactorauthpresent"] == "false"
    assert "aws:multifactorauthage" not in bare
    assert not {"aws:multifactorauthpresent", "aws:tokenissuetime"} & set(
        principal_keys(ROLE, clock.now)
    )


JOHN = Principal(
    kind="user",
    account="123456789012",
    arn="arn:aws:iam::123456789012:user/John",
    user_id="AIDA",
)
NOT = "User: arn:aws:iam::123456789012:user/John is not authorized to perform: "
GROUPS = "arn:aws:codedeploy:us-east-1:123456789012:deploymentgroup:*"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:*"
ROLE_ARN = "arn:aws:iam::123456789012:role/r"


# The examples of https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html,
# and what services were seen to answer where an action has no resource.
@pytest.mark.parametrize(
    ("action", "resource", "kind", "explicit", "text"),
    [
        (
            "codedeploy:ListDeployments",
            GROUPS,
            "permissions boundary",
            False,
            f"codedeploy:ListDeployments on resource: {GROUPS} because no permissions boundary "
            "allows the codedeploy:ListDeployments action",
        ),
        (
            "sagemaker:ListModels",
            "*",
            "permissions boundary",
            True,
            "sagemaker:ListModels with an explicit deny in a permissions boundary",
        ),
        (
            "sagemaker:ListEndpoints",
            "*",
            "identity-based policy",
            False,
            "sagemaker:ListEndpoints because no identity-based policy allows the "
            "sagemaker:ListEndpoints action",
        ),
        (
            "cloudwatch:PutMetricData",
            "*",
            "session policy",
            False,
            "cloudwatch:PutMetricData because no session policy allows the "
            "cloudwatch:PutMetricData action",
        ),
        (
            "codedeploy:ListDeployments",
            GROUPS,
            "session policy",
            True,
            f"codedeploy:ListDeployments on resource: {GROUPS} with an explicit deny in a "
            "session policy",
        ),
        (
            "secretsmanager:GetSecretValue",
            SECRET,
            "resource-based policy",
            False,
            f"secretsmanager:GetSecretValue on resource: {SECRET} because no resource-based "
            "policy allows the secretsmanager:GetSecretValue action",
        ),
        (
            "secretsmanager:GetSecretValue",
            SECRET,
            "resource-based policy",
            True,
            f"secretsmanager:GetSecretValue on resource: {SECRET} with an explicit deny in a "
            "resource-based policy",
        ),
        (
            "sts:AssumeRole",
            ROLE_ARN,
            "role trust policy",
            False,
            f"sts:AssumeRole on resource: {ROLE_ARN}",  # whom it trusts is not told
        ),
        (
            "sts:AssumeRole",
            ROLE_ARN,
            "role trust policy",
            True,
            f"sts:AssumeRole on resource: {ROLE_ARN} with an explicit deny in the role trust "
            "policy",
        ),
        (
            "lambda:ListFunctions",
            "*",
            "identity-based policy",
            False,
            "lambda:ListFunctions on resource: * because no identity-based policy allows the "
            "lambda:ListFunctions action",
        ),
        (
            "ecr:GetAuthorizationToken",
            "*",
            "identity-based policy",
            True,
            "ecr:GetAuthorizationToken on resource: * with an explicit deny in an "
            "identity-based policy",
        ),
        (
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            "identity-based policy",
            False,
            's3:GetObject on resource: "arn:aws:s3:::b/k" because no identity-based policy '
            "allows the s3:GetObject action",
        ),
        (
            "s3:ListAllMyBuckets",
            "*",
            "identity-based policy",
            False,
            "s3:ListAllMyBuckets because no identity-based policy allows the "
            "s3:ListAllMyBuckets action",
        ),
    ],
)
def test_refusals_in_the_words_of_aws(
    action: str, resource: str, kind: PolicyKind, explicit: bool, text: str
) -> None:
    question = Question(JOHN, action, resource)
    decision = Decision("implicitDeny", lacking=kind)
    if explicit:
        decision = Decision("explicitDeny", (Statement("own-name", kind, 0),))
    assert refusal(question, decision) == f"{NOT}{text}"


def test_a_denying_managed_policy_is_named_by_its_arn() -> None:
    """As seen of AWS: `… in an identity-based policy: arn:aws:iam::aws:policy/…`."""
    arn = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3"
    denying = Decision("explicitDeny", (Statement(arn, "identity-based policy", 0),))
    asked = Question(JOHN, "ecr:GetAuthorizationToken")
    assert refusal(asked, denying) == (
        f"{NOT}ecr:GetAuthorizationToken on resource: * with an explicit deny in an "
        f"identity-based policy: {arn}"
    )


def test_who_signs_nothing_has_no_account_and_no_name() -> None:
    nobody = Principal(kind="anonymous", account="", arn="*", user_id="anonymous")
    assert principal_keys(nobody, ManualClock().now) == {
        "aws:principaltype": "Anonymous",
        "aws:principalaccount": "anonymous",
        "aws:userid": "anonymous",
    }
