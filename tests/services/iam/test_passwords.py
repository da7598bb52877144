"""Console passwords and the account's password policy, through boto3."""

from typing import Any

import pytest
from people import refused, user_with_keys, with_keys

from cloche.testing.platform import ACCOUNT, Platform

GOOD = "Secret-12"


@pytest.fixture(scope="module")
def iam(platform: Platform) -> Any:
    return platform.client("iam", as_="root")


def test_a_login_profile(platform: Platform, iam: Any) -> None:
    iam.create_user(UserName="Ann")
    made = iam.create_login_profile(UserName="Ann", Password=GOOD)["LoginProfile"]
    assert (made["UserName"], made["PasswordResetRequired"]) == ("Ann", False)
    assert refused(iam.create_login_profile, UserName="Ann", Password=GOOD) == (
        409,
        "EntityAlreadyExists",
        "Login Profile for user Ann already exists.",
    )
    iam.update_login_profile(UserName="Ann", PasswordResetRequired=True)
    got = iam.get_login_profile(UserName="Ann")["LoginProfile"]
    assert got["PasswordResetRequired"] and got["CreateDate"] == made["CreateDate"]
    iam.delete_login_profile(UserName="Ann")
    missing = (404, "NoSuchEntity", "Login Profile for User Ann cannot be found.")
    for call in (iam.get_login_profile, iam.delete_login_profile, iam.update_login_profile):
        assert refused(call, UserName="Ann") == missing
    assert refused(iam.create_login_profile, UserName="nobody", Password=GOOD)[2] == (
        "The user with name nobody cannot be found."
    )


def test_passwords_are_hashed_apart_from_the_records(platform: Platform, iam: Any) -> None:
    iam.create_user(UserName="Hashed")
    iam.create_login_profile(UserName="Hashed", Password="Very-Secret-12345")
    store = platform.app.store
    names = [name for name in store.secrets.names() if name.startswith("password/")]
    assert names
    assert all("Very-Secret" not in (store.secrets.get(name) or "") for name in names)
    user = store.find(f"arn:aws:iam::{ACCOUNT}:user/Hashed")
    assert user is not None and "Very-Secret" not in str(user.document)
    iam.delete_login_profile(UserName="Hashed")
    left = [name for name in store.secrets.names() if name.startswith("password/")]
    assert len(left) == len(names) - 1


def test_without_a_policy_aws_asks_for_three_of_four_kinds(iam: Any) -> None:
    iam.create_user(UserName="Default")
    refuse = {"UserName": "Default"}
    assert refused(iam.create_login_profile, **refuse, Password="onlyletters1") == (
        400,
        "PasswordPolicyViolation",
        "Password should meet 1 more of the following requirements: Password should have at least "
        "one uppercase letter, Password should have at least one symbol",
    )
    assert refused(iam.create_login_profile, **refuse, Password="Aa1-") == (
        400,
        "PasswordPolicyViolation",
        "Password should have a minimum length of 8",
    )
    iam.create_login_profile(**refuse, Password="Onlyletters1")


def test_the_password_policy(platform: Platform, iam: Any) -> None:
    assert refused(iam.get_account_password_policy) == (
        404,
        "NoSuchEntity",
        f"The Password Policy with domain name {ACCOUNT} cannot be found.",
    )
    assert refused(iam.delete_account_password_policy) == (
        404,
        "NoSuchEntity",
        "The account policy with name PasswordPolicy cannot be found.",
    )
    iam.update_account_password_policy()
    assert iam.get_account_password_policy()["PasswordPolicy"] == {
        "AllowUsersToChangePassword": False,
        "ExpirePasswords": False,
        "MinimumPasswordLength": 6,
        "RequireLowercaseCharacters": False,
        "RequireNumbers": False,
        "RequireSymbols": False,
        "RequireUppercaseCharacters": False,
    }
    wanted = {
        "AllowUsersToChangePassword": True,
        "HardExpiry": True,
        "MaxPasswordAge": 60,
        "MinimumPasswordLength": 10,
        "PasswordReusePrevention": 2,
        "RequireLowercaseCharacters": True,
        "RequireNumbers": True,
        "RequireSymbols": True,
        "RequireUppercaseCharacters": True,
    }
    iam.update_account_password_policy(**wanted)
    shown = iam.get_account_password_policy()["PasswordPolicy"]
    assert shown == {**wanted, "ExpirePasswords": True}
    assert refused(
        iam.update_account_password_policy,
        MinimumPasswordLength=129,
        PasswordReusePrevention=25,
        MaxPasswordAge=1096,
    )[:2] == (400, "ValidationError")

    keys = user_with_keys(iam, "Changer")
    own = with_keys(platform, "iam", keys)
    violation = (
        400,
        "PasswordPolicyViolation",
        "Password does not conform to the account password policy.",
    )
    for bad in ("Short-1", "no-upper-case-1", "NO-LOWER-CASE-1", "No-Number-Here", "NoSymbol123"):
        call = refused(iam.create_login_profile, UserName="Changer", Password=bad)
        assert call == violation, bad
    iam.create_login_profile(UserName="Changer", Password="First-One-1")
    change = own.change_password
    assert refused(change, OldPassword="wrong", NewPassword="Second-One-2") == (
        403,
        "AccessDenied",
        "The old password was incorrect.",
    )
    change(OldPassword="First-One-1", NewPassword="Second-One-2")
    reused = (
        400,
        "PasswordPolicyViolation",
        "Policy constraint violation with password reuse prevention during password change.",
    )
    for old in ("First-One-1", "Second-One-2"):
        assert refused(change, OldPassword="Second-One-2", NewPassword=old) == reused
    change(OldPassword="Second-One-2", NewPassword="Third-One-3")
    change(OldPassword="Third-One-3", NewPassword="First-One-1")  # the third from here: allowed
    root = refused(iam.change_password, OldPassword="a", NewPassword="b")
    assert root == (400, "InvalidUserType", "Only IAM Users can change their own password")
    iam.delete_account_password_policy()
