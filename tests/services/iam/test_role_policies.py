"""A role's policies through boto3: managed ones attached, inline ones written."""

import json
from concurrent.futures import ThreadPoolExecutor

from iam_client import FULL_ACCESS, client, made, policy, refused, statement, trust

from cloche.testing.platform import ACCOUNT, Platform

TRUST = trust(Service="lambda.amazonaws.com")


def test_policies_are_recorded(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Attached", trust(AWS=ACCOUNT))
    for arn in (FULL_ACCESS, "arn:aws:iam::aws:policy/AmazonS3FullAccess", FULL_ACCESS):
        iam.attach_role_policy(RoleName="Attached", PolicyArn=arn)
    attached = iam.list_attached_role_policies(RoleName="Attached")["AttachedPolicies"]
    assert [one["PolicyName"] for one in attached] == [
        "AmazonS3FullAccess",
        "AmazonSageMakerFullAccess",
    ]
    assert refused(iam.delete_role, RoleName="Attached") == (
        409,
        "DeleteConflict",
        "Cannot delete entity, must detach all policies first.",
    )
    nothing = "arn:aws:iam::aws:policy/NoSuchPolicy"
    assert refused(iam.attach_role_policy, RoleName="Attached", PolicyArn=nothing)[1:] == (
        "NoSuchEntity",
        f"Policy {nothing} does not exist or is not attachable.",
    )
    for one in attached:
        iam.detach_role_policy(RoleName="Attached", PolicyArn=one["PolicyArn"])
    assert refused(iam.detach_role_policy, RoleName="Attached", PolicyArn=FULL_ACCESS)[1:] == (
        "NoSuchEntity",
        f"Policy {FULL_ACCESS} was not found.",
    )
    iam.delete_role(RoleName="Attached")


def test_a_policy_is_named_by_its_arn(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "ByArn", TRUST)
    for call in (iam.attach_role_policy, iam.detach_role_policy):
        assert refused(call, RoleName="ByArn", PolicyArn="longpolicynamebutnoarn") == (
            400,
            "ValidationError",
            "ARN longpolicynamebutnoarn is not valid.",
        )


def test_ten_policies_may_be_attached(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Ten", TRUST)
    arns = [
        iam.create_policy(PolicyName=f"Ten{n}", PolicyDocument=policy())["Policy"]["Arn"]
        for n in range(11)
    ]
    for arn in arns[:10]:
        iam.attach_role_policy(RoleName="Ten", PolicyArn=arn)
    assert refused(iam.attach_role_policy, RoleName="Ten", PolicyArn=arns[10]) == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for PoliciesPerRole: 10",
    )
    iam.attach_role_policy(RoleName="Ten", PolicyArn=arns[0])  # it is there already
    page = iam.list_attached_role_policies(RoleName="Ten", MaxItems=7)
    rest = iam.list_attached_role_policies(RoleName="Ten", Marker=page["Marker"])
    found = [each["PolicyArn"] for each in page["AttachedPolicies"] + rest["AttachedPolicies"]]
    assert found == sorted(arns[:10])


def test_one_policy_for_many_roles_at_the_same_time(platform: Platform) -> None:
    iam = client(platform, "iam")
    arn = iam.create_policy(PolicyName="Shared", PolicyDocument=policy())["Policy"]["Arn"]
    names = [f"Sharing{n}" for n in range(4)]
    for name in names:
        made(platform, name, TRUST)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: iam.attach_role_policy(RoleName=n, PolicyArn=arn), names))
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 4


def test_inline_policies(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Inline", TRUST)
    first, second = policy(), policy(statement("s3:PutObject"))
    iam.put_role_policy(RoleName="Inline", PolicyName="b", PolicyDocument=first)
    iam.put_role_policy(RoleName="Inline", PolicyName="a", PolicyDocument=first)
    iam.put_role_policy(RoleName="Inline", PolicyName="b", PolicyDocument=second)
    assert iam.list_role_policies(RoleName="Inline")["PolicyNames"] == ["a", "b"]
    page = iam.list_role_policies(RoleName="Inline", MaxItems=1)
    assert (page["PolicyNames"], page["IsTruncated"]) == (["a"], True)
    got = iam.get_role_policy(RoleName="Inline", PolicyName="b")
    assert (got["RoleName"], got["PolicyName"]) == ("Inline", "b")
    assert got["PolicyDocument"] == json.loads(second)
    assert refused(iam.delete_role, RoleName="Inline") == (
        409,
        "DeleteConflict",
        "Cannot delete entity, must delete policies first.",
    )
    for name in ("a", "b"):
        iam.delete_role_policy(RoleName="Inline", PolicyName=name)
    for call in (iam.get_role_policy, iam.delete_role_policy):
        assert refused(call, RoleName="Inline", PolicyName="a") == (
            404,
            "NoSuchEntity",
            "The role policy with name a cannot be found.",
        )
    iam.delete_role(RoleName="Inline")
    for call, more in (
        (iam.put_role_policy, {"PolicyName": "a", "PolicyDocument": first}),
        (iam.get_role_policy, {"PolicyName": "a"}),
        (iam.delete_role_policy, {"PolicyName": "a"}),
        (iam.list_role_policies, {}),
    ):
        assert refused(call, RoleName="Inline", **more) == (
            404,
            "NoSuchEntity",
            "The role with name Inline cannot be found.",
        )


def test_inline_policies_are_checked(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Checked", TRUST)
    asked = {"RoleName": "Checked", "PolicyName": "p"}
    for document, message in (
        ("{", "Syntax errors in policy."),
        (
            policy(statement(Principal="*")),
            "Policy document should not specify a principal.",
        ),
        (
            policy(statement(resource="bucket")),
            'Resource bucket must be in ARN format or "*".',
        ),
    ):
        found = refused(iam.put_role_policy, **asked, PolicyDocument=document)
        assert found == (400, "MalformedPolicyDocument", message)


def test_inline_policies_have_a_size_together(platform: Platform) -> None:
    iam = client(platform, "iam")
    made(platform, "Sized", TRUST)
    half = policy(statement(resource=["arn:aws:s3:::b/" + "x" * 4900]))
    for name in ("a", "b", "a"):
        iam.put_role_policy(RoleName="Sized", PolicyName=name, PolicyDocument=half)
    more = {"RoleName": "Sized", "PolicyName": "c"}
    error = (409, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role Sized")
    assert refused(iam.put_role_policy, **more, PolicyDocument=half) == error
    small = json.dumps(json.loads(policy()), indent=5000)  # white space is free
    assert len(small) > 10240
    iam.put_role_policy(**more, PolicyDocument=small)
