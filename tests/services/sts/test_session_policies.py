"""What a session may do at all: its role's policies and its own, asked at every request."""

import json
from typing import Any

from people import ADMINISTRATOR, refused, user_with_keys, with_keys

from cloche.testing.platform import ACCOUNT, Platform

ALLOW_USERS = {"Effect": "Allow", "Action": "iam:ListUsers", "Resource": "*"}
ONLY_USERS = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW_USERS]})


def test_a_session_policy_narrows_what_the_role_may(platform: Platform) -> None:
    iam = platform.client("iam", as_="root")
    user = f"arn:aws:iam::{ACCOUNT}:user/Assumer"
    keys = user_with_keys(iam, "Assumer")
    statement = {"Effect": "Allow", "Principal": {"AWS": user}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    arn = iam.create_role(RoleName="Narrowed", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.attach_role_policy(RoleName="Narrowed", PolicyArn=ADMINISTRATOR)
    sts = with_keys(platform, "sts", keys)

    def session(**more: Any) -> Any:
        given = sts.assume_role(RoleArn=arn, RoleSessionName="narrow", **more)
        return with_keys(platform, "iam", given["Credentials"])

    whole = session()
    whole.list_groups()  # CONTROL
    for more in (
        {"Policy": ONLY_USERS},
        {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"}]},
    ):
        narrow = session(**more)
        _, code, text = refused(narrow.list_groups)
        assert code == "AccessDenied"
        assert text.endswith("because no session policy allows the iam:ListGroups action")
    session(Policy=ONLY_USERS).list_users()
