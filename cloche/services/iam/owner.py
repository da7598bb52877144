"""Whom the owner of the home folder may be, by the name that `cloche run --as NAME` gives.

Issued by the owner's token alone: no trust policy is asked, and no key of the user's is needed.
"""

from datetime import datetime

from cloche.core.errors import AwsError
from cloche.core.identity import Credential
from cloche.records.resource import Listing
from cloche.services.iam.identity import ADMINISTRATOR, REGION, Identity
from cloche.services.iam.users import ROOT, User

EXECUTION, ADMIN = "role", "admin"
SESSION_NAME = "SageMaker"  # of the execution role's session, as a notebook's is called
NAMED = 20  # roles, and users, that an error names


async def session_as(
    identity: Identity, account: str, name: str, duration_s: int, now: datetime
) -> Credential:
    """Return new temporary keys of a role or user; NoSuchEntity says which there are.

    A name may say which it is: `role/NAME`, `user/NAME`; a role comes before a user.
    """
    if name == EXECUTION:
        role = identity.execution_role(account)
        if role is None:
            text = "The execution role no longer exists: the next `cloche up` makes another."
            raise no_such(identity, account, text)
        return await identity.session(role.arn, SESSION_NAME, duration_s, now)
    kind, slash, plain = name.rpartition("/")
    wanted = ADMINISTRATOR if name == ADMIN else plain if slash else name
    if kind in ("", "role") and (role := identity.role(account, wanted)) is not None:
        return await identity.session(role.arn, "cloche", duration_s, now)
    user = identity.store.get("user", account, REGION, wanted.lower())
    if kind in ("", "user") and user is not None and user.name != ROOT:
        who = User.of(user).principal
        return await identity.issue(who, who.user_id, duration_s, now)
    raise no_such(identity, account, f"There is no role or user {name}.")


def no_such(identity: Identity, account: str, text: str) -> AwsError:
    """Return an error that ends with whom there is, not more than a few of each kind."""
    there = [f"{EXECUTION} (the execution role), {ADMIN} ({ADMINISTRATOR}), root"]
    for kind in ("role", "user"):
        listing = Listing(kind=kind, account=account, region=REGION, sort_by="name", limit=NAMED)
        page = identity.store.page(listing)
        found = [record.arn.rpartition("/")[2] for record in page.resources if record.name != ROOT]
        if found:
            there.append(f"{kind}s: {', '.join(found)}{', …' if page.next_token else ''}")
    return AwsError("NoSuchEntity", f"{text} There are: {'; '.join(there)}.", 404)
