"""Users, groups and access keys through boto3. The texts are those that AWS answered."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from people import ADMINISTRATOR, refused, user_with_keys, with_keys

from cloche.core.clock import ManualClock, SystemClock
from cloche.testing.platform import ACCOUNT, Platform, start

READ = "arn:aws:iam::aws:policy/ReadOnlyAccess"
ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW]})
INVALID_TOKEN = (
    403,
    "InvalidClientTokenId",
    "The security token included in the request is invalid.",
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose clock stands still."""
    clock = ManualClock(SystemClock().now())
    with start(tmp_path_factory.mktemp("home"), clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
def iam(platform: Platform) -> Any:
    return platform.client("iam", as_="root")


def no_user(name: str) -> tuple[int, str, str]:
    return 404, "NoSuchEntity", f"The user with name {name} cannot be found."


def no_group(name: str) -> tuple[int, str, str]:
    return 404, "NoSuchEntity", f"The group with name {name} cannot be found."


def conflict(what: str) -> tuple[int, str, str]:
    return 409, "DeleteConflict", f"Cannot delete entity, must {what} first."


def test_a_user_from_its_making_to_its_end(iam: Any) -> None:
    tags = [{"Key": "team", "Value": "dogs"}]
    made = iam.create_user(UserName="Ann", Path="/a/", Tags=tags, PermissionsBoundary=READ)["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/a/Ann" and made["Tags"] == tags
    assert made["UserId"].startswith("AIDA") and len(made["UserId"]) == 21
    assert made["PermissionsBoundary"]["PermissionsBoundaryArn"] == READ
    assert iam.get_user(UserName="ann")["User"] == made  # names ignore case
    listed = iam.list_users(PathPrefix="/a/")["Users"]
    assert listed == [{k: v for k, v in made.items() if k not in ("Tags", "PermissionsBoundary")}]
    assert refused(iam.create_user, UserName="ANN") == (
        409,
        "EntityAlreadyExists",
        "User with name ANN already exists.",
    )
    iam.delete_user_permissions_boundary(UserName="Ann")
    assert "PermissionsBoundary" not in iam.get_user(UserName="Ann")["User"]
    iam.tag_user(UserName="Ann", Tags=[{"Key": "Team", "Value": "cats"}])
    assert iam.list_user_tags(UserName="Ann")["Tags"] == [{"Key": "Team", "Value": "cats"}]
    iam.untag_user(UserName="Ann", TagKeys=["team"])
    assert iam.list_user_tags(UserName="Ann")["Tags"] == []
    iam.delete_user(UserName="Ann")
    for call in (iam.get_user, iam.update_user, iam.delete_user, iam.list_user_tags):
        assert refused(call, UserName="Ann") == no_user("Ann")


def test_what_belongs_to_a_user_goes_first(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Owner")
    iam.create_group(GroupName="Owners")
    iam.add_user_to_group(GroupName="Owners", UserName="Owner")
    iam.attach_user_policy(UserName="Owner", PolicyArn=READ)
    iam.put_user_policy(UserName="Owner", PolicyName="p", PolicyDocument=POLICY)
    iam.create_login_profile(UserName="Owner", Password="Secret-12")
    steps = (
        ("remove users from group", lambda: iam.remove_user_from_group(**names)),
        ("detach all policies", lambda: iam.detach_user_policy(UserName="Owner", PolicyArn=READ)),
        ("delete policies", lambda: iam.delete_user_policy(UserName="Owner", PolicyName="p")),
        ("delete login profile", lambda: iam.delete_login_profile(UserName="Owner")),
        (
            "delete access keys",
            lambda: iam.delete_access_key(UserName="Owner", AccessKeyId=keys["AccessKeyId"]),
        ),
    )
    names = {"GroupName": "Owners", "UserName": "Owner"}
    for what, undo in steps:
        assert refused(iam.delete_user, UserName="Owner") == conflict(what)
        undo()
    iam.delete_user(UserName="Owner")
    iam.delete_group(GroupName="Owners")


def test_inline_and_managed_policies(iam: Any) -> None:
    iam.create_user(UserName="Polly")
    iam.create_group(GroupName="Pollies")
    for kind, name in (("user", "Polly"), ("group", "Pollies")):
        who = {f"{kind.title()}Name": name}
        put, get = getattr(iam, f"put_{kind}_policy"), getattr(iam, f"get_{kind}_policy")
        names = getattr(iam, f"list_{kind}_policies")
        assert names(**who)["PolicyNames"] == []
        put(**who, PolicyName="p", PolicyDocument=POLICY)
        got = get(**who, PolicyName="p")
        assert got["PolicyDocument"] == json.loads(POLICY) and got[f"{kind.title()}Name"] == name
        assert names(**who)["PolicyNames"] == ["p"]
        missing = (404, "NoSuchEntity", f"The {kind} policy with name q cannot be found.")
        assert refused(get, **who, PolicyName="q") == missing
        assert refused(getattr(iam, f"delete_{kind}_policy"), **who, PolicyName="q") == missing
        assert refused(put, **who, PolicyName="q", PolicyDocument="{") == (
            400,
            "MalformedPolicyDocument",
            "Syntax errors in policy.",
        )
        attach, detach = (
            getattr(iam, f"attach_{kind}_policy"),
            getattr(iam, f"detach_{kind}_policy"),
        )
        attached = getattr(iam, f"list_attached_{kind}_policies")
        attach(**who, PolicyArn=READ)
        attach(**who, PolicyArn=READ)
        shown = [{"PolicyName": "ReadOnlyAccess", "PolicyArn": READ}]
        assert attached(**who)["AttachedPolicies"] == shown
        nothing = f"arn:aws:iam::{ACCOUNT}:policy/nothing"
        assert refused(attach, **who, PolicyArn=nothing)[1:] == (
            "NoSuchEntity",
            f"Policy {nothing} does not exist or is not attachable.",
        )
        detach(**who, PolicyArn=READ)
        assert refused(detach, **who, PolicyArn=READ)[1:] == (
            "NoSuchEntity",
            f"Policy {READ} was not found.",
        )


@pytest.mark.parametrize(("kind", "most"), [("user", 2048), ("group", 5120)])
def test_all_inline_policies_together_are_bounded(iam: Any, kind: str, most: int) -> None:
    name = f"Large{kind}"
    getattr(iam, f"create_{kind}")(**{f"{kind.title()}Name": name})
    put = getattr(iam, f"put_{kind}_policy")

    def of(size: int) -> str:
        bare = json.dumps({"Statement": [{**ALLOW, "Sid": ""}]}).replace(" ", "")
        return json.dumps({"Statement": [{**ALLOW, "Sid": "s" * (size - len(bare))}]}, indent=1)

    who = {f"{kind.title()}Name": name}
    half = most // 2
    put(**who, PolicyName="a", PolicyDocument=of(half))
    assert refused(put, **who, PolicyName="b", PolicyDocument=of(half + 1)) == (
        409,
        "LimitExceeded",
        f"Maximum policy size of {most} bytes exceeded for {kind} {name}",
    )
    put(**who, PolicyName="b", PolicyDocument=of(half))


def test_groups_and_who_is_in_them(iam: Any) -> None:
    group = iam.create_group(GroupName="Team", Path="/t/")["Group"]
    assert group["Arn"] == f"arn:aws:iam::{ACCOUNT}:group/t/Team"
    assert group["GroupId"].startswith("AGPA")
    assert refused(iam.create_group, GroupName="team")[2] == "Group with name team already exists."
    for number in range(5):
        iam.create_user(UserName=f"Member{number}")
        for _ in range(2):  # the second time changes nothing
            iam.add_user_to_group(GroupName="Team", UserName=f"Member{number}")
    pages = iam.get_paginator("get_group").paginate(
        GroupName="Team", PaginationConfig={"PageSize": 2}
    )
    found = [[user["UserName"] for user in page["Users"]] for page in pages]
    assert found == [["Member0", "Member1"], ["Member2", "Member3"], ["Member4"]]
    assert iam.list_groups_for_user(UserName="Member0")["Groups"] == [group]
    assert iam.list_groups(PathPrefix="/t/")["Groups"] == [group]
    assert refused(iam.delete_group, GroupName="Team") == conflict("remove users from group")
    add, remove = iam.add_user_to_group, iam.remove_user_from_group
    assert refused(add, GroupName="Team", UserName="nobody") == no_user("nobody")
    assert refused(add, GroupName="none", UserName="Member0") == no_group("none")
    assert refused(remove, GroupName="none", UserName="Member0") == no_group("none")
    remove(GroupName="Team", UserName="Polly")  # who is not in it
    for number in range(5):
        remove(GroupName="Team", UserName=f"Member{number}")
    assert iam.get_group(GroupName="Team")["Users"] == []
    assert iam.list_groups_for_user(UserName="Member0")["Groups"] == []
    iam.delete_group(GroupName="Team")
    assert refused(iam.get_group, GroupName="Team") == no_group("Team")


def test_a_user_is_in_ten_groups_at_the_most(iam: Any) -> None:
    iam.create_user(UserName="Popular")
    for number in range(11):
        iam.create_group(GroupName=f"Many{number}")
        if number < 10:
            iam.add_user_to_group(GroupName=f"Many{number}", UserName="Popular")
    assert refused(iam.add_user_to_group, GroupName="Many10", UserName="Popular") == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for GroupsPerUser: 10",
    )


def test_renamed_everything_goes_with_a_user_and_a_group(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Before")
    iam.create_group(GroupName="Old")
    iam.add_user_to_group(GroupName="Old", UserName="Before")
    iam.create_login_profile(UserName="Before", Password="Secret-12")
    sts = with_keys(platform, "sts", keys)
    before = sts.get_caller_identity()
    assert before["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/Before"
    assert before["UserId"] == iam.get_user(UserName="Before")["User"]["UserId"]
    session = with_keys(platform, "sts", sts.get_session_token()["Credentials"])
    iam.update_user(UserName="Before", NewUserName="After", NewPath="/p/")
    iam.update_group(GroupName="Old", NewGroupName="New")
    after = f"arn:aws:iam::{ACCOUNT}:user/p/After"
    assert sts.get_caller_identity()["Arn"] == session.get_caller_identity()["Arn"] == after
    assert sts.get_caller_identity()["UserId"] == before["UserId"]
    assert refused(iam.get_user, UserName="Before") == no_user("Before")
    assert refused(iam.get_group, GroupName="Old") == no_group("Old")
    assert [user["Arn"] for user in iam.get_group(GroupName="New")["Users"]] == [after]
    groups = iam.list_groups_for_user(UserName="After")["Groups"]
    assert [group["GroupName"] for group in groups] == ["New"]
    assert iam.list_access_keys(UserName="After")["AccessKeyMetadata"][0]["UserName"] == "After"
    assert iam.get_login_profile(UserName="After")["LoginProfile"]["UserName"] == "After"
    iam.create_user(UserName="Taken")
    assert refused(iam.update_user, UserName="After", NewUserName="taken") == (
        409,
        "EntityAlreadyExists",
        "User with name taken already exists.",
    )
    iam.create_group(GroupName="Full")
    assert refused(iam.update_group, GroupName="New", NewGroupName="Full") == (
        409,
        "EntityAlreadyExists",
        "Group with name Full already exists.",
    )
    iam.update_user(UserName="After", NewUserName="after")
    assert iam.get_user(UserName="AFTER")["User"]["UserName"] == "after"


def test_users_are_listed_by_pages(iam: Any) -> None:
    for number in range(3):
        iam.create_user(UserName=f"Page{number}", Path="/pages/")
    pages = iam.get_paginator("list_users").paginate(
        PathPrefix="/pages/", PaginationConfig={"PageSize": 2}
    )
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [
        ["Page0", "Page1"],
        ["Page2"],
    ]
    for call in (iam.list_users, iam.list_groups, iam.list_virtual_mfa_devices):
        assert refused(call, Marker="nonsense") == (400, "ValidationError", "Invalid Marker.")


# ---------------------------------------------------------------------- access keys


def test_keys_work_until_they_are_inactive_or_gone(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Keyed", ADMINISTRATOR)
    assert keys["Status"] == "Active" and keys["AccessKeyId"].startswith("AKIA")
    sts, s3 = with_keys(platform, "sts", keys), with_keys(platform, "s3", keys)
    sts.get_caller_identity()
    which = {"UserName": "Keyed", "AccessKeyId": keys["AccessKeyId"]}
    iam.update_access_key(**which, Status="Inactive")
    assert refused(sts.get_caller_identity) == INVALID_TOKEN
    assert refused(s3.list_buckets)[1] == "InvalidAccessKeyId"
    assert iam.list_access_keys(UserName="Keyed")["AccessKeyMetadata"][0]["Status"] == "Inactive"
    iam.update_access_key(**which, Status="Active")
    sts.get_caller_identity()
    iam.delete_access_key(**which)
    assert refused(sts.get_caller_identity) == INVALID_TOKEN
    assert refused(iam.update_access_key, **which, Status="Active") == (
        404,
        "NoSuchEntity",
        f"The Access Key with id {keys['AccessKeyId']} cannot be found.",
    )


def test_a_user_has_two_keys_at_the_most(platform: Platform, iam: Any) -> None:
    user_with_keys(iam, "Two")
    iam.create_access_key(UserName="Two")
    assert refused(iam.create_access_key, UserName="Two") == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for AccessKeysPerUser: 2",
    )


def test_users_see_to_their_own_keys(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Self", ADMINISTRATOR)
    own = with_keys(platform, "iam", keys)
    assert own.get_user()["User"]["UserName"] == "Self"
    second = own.create_access_key()["AccessKey"]
    listed = own.list_access_keys()["AccessKeyMetadata"]
    assert {key["AccessKeyId"] for key in listed} == {keys["AccessKeyId"], second["AccessKeyId"]}
    own.delete_access_key(AccessKeyId=second["AccessKeyId"])
    role = platform.client("iam", as_="admin")
    for call, more in (
        (role.create_access_key, {}),
        (role.list_access_keys, {}),
        (role.delete_access_key, {"AccessKeyId": keys["AccessKeyId"]}),
    ):
        assert refused(call, **more) == (
            400,
            "ValidationError",
            "Must specify userName when calling with non-User credentials",
        )


def test_when_a_key_was_last_used(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Used", ADMINISTRATOR)
    key_id = keys["AccessKeyId"]
    before = iam.get_access_key_last_used(AccessKeyId=key_id)
    assert before["UserName"] == "Used"
    assert before["AccessKeyLastUsed"] == {"ServiceName": "N/A", "Region": "N/A"}
    with_keys(platform, "sts", keys).get_caller_identity()
    used = iam.get_access_key_last_used(AccessKeyId=key_id)["AccessKeyLastUsed"]
    assert (used["ServiceName"], used["Region"]) == ("sts", "us-east-1")
    assert used["LastUsedDate"] == platform.app.clock.now()
    platform.call(platform.app.identity.key_use.write())
    assert platform.app.identity.key_use.noted == {}
    assert iam.get_access_key_last_used(AccessKeyId=key_id)["AccessKeyLastUsed"] == used
    with_keys(platform, "iam", keys).list_access_keys()
    again = iam.get_access_key_last_used(AccessKeyId=key_id)["AccessKeyLastUsed"]
    assert again["ServiceName"] == "iam"
    caller = f"arn:aws:iam::{ACCOUNT}:root"
    unknown = "AKIAIOSFODNN7EXAMPLE"
    assert refused(iam.get_access_key_last_used, AccessKeyId=unknown) == (
        403,
        "AccessDenied",
        f"User: {caller} is not authorized to perform iam:GetAccessKeyLastUsed "
        f"on resource: access key {unknown}",
    )


def test_roots_keys_are_listed_and_not_changed(iam: Any) -> None:
    (key,) = iam.list_access_keys()["AccessKeyMetadata"]
    assert key["Status"] == "Active" and "UserName" not in key
    for call, more in (
        (iam.create_access_key, {}),
        (iam.delete_access_key, {"AccessKeyId": key["AccessKeyId"]}),
    ):
        assert "Cloche does not support changing root's access keys" in refused(call, **more)[2]


def test_sessions_end_with_their_user(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Ending")
    token = with_keys(platform, "sts", keys).get_session_token()["Credentials"]
    sts = with_keys(platform, "sts", token)
    iam.delete_access_key(UserName="Ending", AccessKeyId=keys["AccessKeyId"])
    sts.get_caller_identity()  # as on AWS: a session does not end with the key
    iam.delete_user(UserName="Ending")
    assert refused(sts.get_caller_identity) == INVALID_TOKEN


def test_what_groups_and_boundaries_allow_is_in_force_at_the_next_request(
    platform: Platform, iam: Any
) -> None:
    own = with_keys(platform, "iam", user_with_keys(iam, "Grouped"))
    arn = f"arn:aws:iam::{ACCOUNT}:user/Grouped"
    denied = (
        403,
        "AccessDenied",
        f"User: {arn} is not authorized to perform: iam:GetUser on resource: {arn} because "
        "no {} allows the iam:GetUser action",
    )

    def lacking(what: str) -> tuple[int, str, str]:
        return (*denied[:2], denied[2].format(what))

    assert refused(own.get_user) == lacking("identity-based policy")
    iam.create_group(GroupName="Readers")
    iam.attach_group_policy(GroupName="Readers", PolicyArn=READ)
    iam.add_user_to_group(GroupName="Readers", UserName="Grouped")
    own.get_user()
    iam.update_group(GroupName="Readers", NewGroupName="Lectors")
    own.get_user()
    bound = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
    iam.put_user_permissions_boundary(UserName="Grouped", PermissionsBoundary=bound)
    assert refused(own.get_user) == lacking("permissions boundary")
    iam.delete_user_permissions_boundary(UserName="Grouped")
    own.get_user()
    iam.remove_user_from_group(GroupName="Lectors", UserName="Grouped")
    assert refused(own.get_user) == lacking("identity-based policy")
