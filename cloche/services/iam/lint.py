"""What is wider than it needs to be: findings about roles, users, keys and root."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET

from cloche.services.iam.attached import Attached, PolicyText
from cloche.services.iam.evaluation import listed
from cloche.services.iam.identity import ADMINISTRATOR, Identity, Role
from cloche.services.iam.usage import ActionsUsed
from cloche.services.iam.users import User

OLD_KEY = timedelta(days=90)
UNUSED = timedelta(days=30)  # the time that is looked at for what was used
SERVICE_LINKED = "/aws-service-role/"  # the path of roles that nobody can change
SEVERAL = 3  # services that a policy may allow beside those that were used


@dataclass(frozen=True, slots=True)
class IamFinding:
    """Something to look at: about whom (an ARN), what it is, what helps."""

    about: str
    what: str
    fix: str = ""


def of_role(
    role: Role, attached: Attached, used: ActionsUsed, now: datetime
) -> Iterator[IamFinding]:
    """Yield what is too wide about a role; used: what it did in the time that is looked at."""
    yield from too_wide(role.arn, attached, f"cloche iam suggest {role.name}")
    done = {action.partition(":")[0] for action in used.done.resources}
    allowed = services(attached)
    if not done and now - role.record.created > UNUSED:
        yield IamFinding(
            role.arn,
            f"It did nothing in the last {UNUSED.days} days.",
            f"cloche run --as admin -- aws iam delete-role --role-name {role.name}",
        )
    elif done and len(allowed - done) > SEVERAL:
        some = ", ".join(sorted(done))
        yield IamFinding(
            role.arn,
            f"It may use {len(allowed)} services and used {len(done)} of them in the last "
            f"{UNUSED.days} days: {some}.",
            f"cloche iam suggest {role.name}",
        )


def of_user(
    identity: Identity, user: User, attached: Attached, now: datetime
) -> Iterator[IamFinding]:
    """Yield what is too wide or too old about a user."""
    yield from too_wide(user.arn, attached, "")
    if user.document.login_profile is not UNSET and not identity.mfa.of(user.id):
        yield IamFinding(
            user.arn,
            "It has a console password and no MFA device.",
            "aws iam create-virtual-mfa-device, then aws iam enable-mfa-device",
        )
    for key in identity.keys_of(user.id):
        age = now - key.created
        if age > OLD_KEY:
            yield IamFinding(
                user.arn,
                f"Its access key {key.name} is {age.days} days old.",
                f"aws iam create-access-key --user-name {user.name}, then delete the old one",
            )


def of_root(identity: Identity, account: str) -> Iterator[IamFinding]:
    """Yield what AWS warns of about root."""
    arn = f"arn:aws:iam::{account}:root"
    if not identity.mfa.of(account):
        yield IamFinding(
            arn,
            "Root has no MFA device.",
            "cloche root mfa",
        )
    yield IamFinding(
        arn,
        "Root has access keys. Cloche makes them with the account, for its owner only.",
        "Use --as admin, or an IAM user, for daily work",
    )


def findings(
    identity: Identity, account: str, usages: Mapping[str, ActionsUsed], now: datetime
) -> Iterator[IamFinding]:
    """Yield all findings about an account; usages: by ARN, of the time that is looked at."""
    yield from of_root(identity, account)
    for role in identity.roles_after(account, None):
        if role.document.path.startswith(SERVICE_LINKED) or role.name == ADMINISTRATOR:
            continue
        attached = identity.policies.attached(role.record)
        yield from of_role(role, attached, usages.get(role.arn, ActionsUsed()), now)
    for user in identity.users.users(account, None):
        yield from of_user(identity, user, identity.policies.attached(user.record), now)


def too_wide(about: str, attached: Attached, fix: str) -> Iterator[IamFinding]:
    """Yield the statements that allow everything, or everything of a service, on everything."""
    for policy in attached.identity:
        wide = sorted({action for each in allows(policy) for action in wild_actions(each)})
        if "*" in wide:
            yield IamFinding(about, f"{short(policy)} allows every action on every resource.", fix)
        elif wide:
            actions = ", ".join(wide)
            yield IamFinding(about, f"{short(policy)} allows {actions} on every resource.", fix)


def allows(policy: PolicyText) -> Iterator[Mapping[str, Any]]:
    """Yield the statements that allow something."""
    return (each for each in listed(policy.policy["Statement"]) if each["Effect"] == "Allow")


def wild_actions(statement: Mapping[str, Any]) -> Iterator[str]:
    """Yield the actions that are all of a service's, where the resources are all there are."""
    everything = "*" in listed(statement.get("Resource", ()))
    if not everything or "Condition" in statement:
        return
    if "NotAction" in statement:
        yield "*"
    for action in listed(statement.get("Action", [])):
        if action == "*" or action.endswith(":*"):
            yield action


def services(attached: Attached) -> set[str]:
    """Return the services that policies name actions of."""
    return {
        action.partition(":")[0].lower()
        for policy in attached.identity
        for statement in allows(policy)
        for action in listed(statement.get("Action", []))
    }


def short(policy: PolicyText) -> str:
    """Return a policy's name as people know it."""
    return policy.name.rpartition("/")[2]
