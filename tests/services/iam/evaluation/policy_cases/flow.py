"""The evaluation flow: every kind of policy, in one account and across two.

A row says what each kind of policy says of the request: "allow", "deny", "nothing" (there is one,
of something else) or None (there is none), and of a resource's whom it allows or denies.
"""

from collections.abc import Sequence
from typing import Any

from cloche.core.identity import Principal
from policy_cases.case import (
    ACCOUNT,
    ALICE,
    ANONYMOUS,
    EXPLICIT,
    GUIDE,
    OTHER,
    ROOT,
    SERVICE,
    SESSION,
    Case,
    document,
    implicit,
    root,
    statement,
)

FLOW = f"{GUIDE}reference_policies_evaluation-logic_policy-eval-denyallow.html"
BASICS = f"{GUIDE}reference_policies_evaluation-logic_policy-eval-basics.html"
BOUNDARIES = f"{GUIDE}access_policies_boundaries.html"
CROSS = f"{GUIDE}reference_policies_evaluation-logic-cross-account.html"
PRINCIPAL = f"{GUIDE}reference_policies_elements_principal.html"
TEXTS = f"{GUIDE}troubleshoot_access-denied.html"
LOCKED_OUT = "https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html"
OK = "allowed"
ID, PB, SP, RP, TP = map(implicit, ("identity", "boundary", "session", "resource", "trust"))
X_ID, X_PB, X_SP, X_RP = (EXPLICIT[k] for k in ("identity", "boundary", "session", "resource"))

SAID = {
    "allow": (statement(Action="s3:GetObject"),),
    "deny": (statement("Deny", Action="s3:GetObject"),),
    "both": (statement(), statement("Deny", Action="s3:GetObject")),
    "nothing": (statement(Action="ec2:*"), statement("Deny", Action="ec2:*")),
}
Says = str | None
Row = tuple[str, str, Principal, Says, Says, Says, Says, str]
ME, HIS_ROLE, HIS_SESSION = ALICE.arn, SESSION.role_arn, SESSION.arn
NAMES: dict[str, Any] = {
    "user": {"AWS": ME},
    "role": {"AWS": HIS_ROLE},
    "session": {"AWS": HIS_SESSION},
    "account": {"AWS": ACCOUNT},
    "everybody": "*",
    "service": {"Service": SERVICE.arn},
    "other": {"AWS": "arn:aws:iam::111122223333:user/somebody-else"},
    "root": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
}


def of_resource(says: str) -> dict[str, Any]:
    """Return a bucket's policy: "allow user", "deny account", "allow user, deny role", …"""
    statements = []
    for each in says.split(", "):
        effect, whom = each.split()
        statements.append(
            statement(effect.title(), Principal=NAMES[whom], Action="s3:GetObject", Sid=each)
        )
    return document(*statements)


def policies(identity: Says, boundary: Says, session: Says, resource: Says) -> dict[str, Any]:
    own = {"identity": identity, "boundary": boundary, "session": session}
    made = {kind: document(*SAID[says]) for kind, says in own.items() if says is not None}
    return made | ({} if resource is None else {"resource": of_resource(resource)})


def rows(given: Sequence[Row], owner: str | None = None) -> list[Case]:
    return [
        Case(
            page, f"{name}: {who.kind}; {identity}, {boundary}, {session}, {resource}", expected,
            policies(identity, boundary, session, resource), who=who, owner=owner,
        )
        for page, name, who, identity, boundary, session, resource, expected in given
    ]  # fmt: skip


# who, identity, boundary, session, resource
ONE_ACCOUNT: list[Row] = [
    (FLOW, "by default, no", ALICE, None, None, None, None, ID),
    (FLOW, "by default, no", SESSION, None, None, None, None, ID),
    (FLOW, "root has full access", ROOT, None, None, None, None, OK),
    (FLOW, "its identity policies don't bind root", ROOT, "deny", None, None, None, OK),
    (FLOW, "no boundary binds root", ROOT, None, "nothing", None, None, OK),
    (FLOW, "no session policy binds root", ROOT, None, None, "nothing", None, OK),
    (FLOW, "a Deny of the resource does", ROOT, None, None, None, "deny everybody", X_RP),
    (FLOW, "a Deny of the resource does", ROOT, None, None, None, "deny root", X_RP),
    (FLOW, "a Deny of somebody else doesn't", ROOT, None, None, None, "deny other", OK),
    (FLOW, "an Allow of somebody else", ROOT, None, None, None, "allow other", OK),
    # Explicit denies, alone and against Allows of all other kinds.
    (FLOW, "an explicit deny", ALICE, "deny", None, None, None, X_ID),
    (FLOW, "an explicit deny", ALICE, "both", None, None, None, X_ID),
    (FLOW, "an explicit deny", ALICE, "deny", "allow", None, "allow user", X_ID),
    (FLOW, "an explicit deny", SESSION, "deny", "allow", "allow", "allow session", X_ID),
    (FLOW, "an explicit deny", ALICE, "allow", "deny", None, None, X_PB),
    (FLOW, "an explicit deny", ALICE, "allow", "both", None, "allow user", X_PB),
    (FLOW, "an explicit deny", SESSION, "allow", "both", "allow", "allow session", X_PB),
    (FLOW, "an explicit deny", SESSION, "allow", None, "deny", None, X_SP),
    (FLOW, "an explicit deny", SESSION, "allow", "allow", "both", "allow session", X_SP),
    (FLOW, "an explicit deny", ALICE, "allow", None, None, "deny user", X_RP),
    (FLOW, "an explicit deny", ALICE, "allow", "allow", None, "allow user, deny account", X_RP),
    (FLOW, "an explicit deny", SESSION, "allow", "allow", "allow", "deny role", X_RP),
    (FLOW, "an explicit deny", SESSION, "allow", None, None, "allow role, deny session", X_RP),
    (FLOW, "an explicit deny", SESSION, "allow", None, None, "deny everybody", X_RP),
    (FLOW, "an explicit deny of others", ALICE, "allow", None, None, "deny other", OK),
    (FLOW, "an explicit deny where nothing allows", ALICE, None, "deny", None, None, X_PB),
    (FLOW, "an explicit deny where nothing allows", SESSION, None, None, "deny", None, X_SP),
    (FLOW, "an explicit deny where nothing allows", ALICE, None, None, None, "deny user", X_RP),
    (TEXTS, "one of several kinds is named", SESSION, "deny", "deny", "deny", "deny role", X_RP),
    (TEXTS, "one of several kinds is named", SESSION, "deny", "deny", "deny", None, X_ID),
    (TEXTS, "one of several kinds is named", SESSION, "allow", "deny", "deny", None, X_PB),
    # Identity policies.
    (FLOW, "identity allows", ALICE, "allow", None, None, None, OK),
    (FLOW, "identity allows", SESSION, "allow", None, None, None, OK),
    (FLOW, "identity says nothing", ALICE, "nothing", None, None, None, ID),
    (FLOW, "identity says nothing", SESSION, "nothing", None, None, None, ID),
    # Boundaries: "everything that is allowed by both policy types".
    (BOUNDARIES, "both allow", ALICE, "allow", "allow", None, None, OK),
    (BOUNDARIES, "both allow", SESSION, "allow", "allow", None, None, OK),
    (BOUNDARIES, "the boundary doesn't", ALICE, "allow", "nothing", None, None, PB),
    (BOUNDARIES, "the boundary doesn't", SESSION, "allow", "nothing", None, None, PB),
    (BOUNDARIES, "a boundary grants nothing", ALICE, "nothing", "allow", None, None, ID),
    (BOUNDARIES, "a boundary grants nothing", ALICE, None, "allow", None, None, ID),
    (BOUNDARIES, "neither", ALICE, "nothing", "nothing", None, None, ID),
    # Session policies: the intersection of all.
    (FLOW, "both allow", SESSION, "allow", None, "allow", None, OK),
    (FLOW, "the session policy doesn't", SESSION, "allow", None, "nothing", None, SP),
    (FLOW, "a session policy grants nothing", SESSION, "nothing", None, "allow", None, ID),
    (FLOW, "a session policy grants nothing", SESSION, None, None, "allow", None, ID),
    (BOUNDARIES, "all three", SESSION, "allow", "allow", "allow", None, OK),
    (BOUNDARIES, "all but the boundary", SESSION, "allow", "nothing", "allow", None, PB),
    (BOUNDARIES, "all but the session policy", SESSION, "allow", "allow", "nothing", None, SP),
    (BOUNDARIES, "the identity only", SESSION, "allow", "nothing", "nothing", None, PB),
    (FLOW, "a federated user's session policy", ALICE, "allow", None, "allow", None, OK),
    (FLOW, "a federated user's session policy", ALICE, "allow", None, "nothing", None, SP),
    # Resource policies: "at least one Allow within the same account".
    (BASICS, "only the resource", ALICE, None, None, None, "allow user", OK),
    (BASICS, "only the resource", SESSION, None, None, None, "allow role", OK),
    (BASICS, "only the resource", SESSION, None, None, None, "allow session", OK),
    (BASICS, "only the identity", ALICE, "allow", None, None, "allow other", OK),
    (BASICS, "both", ALICE, "allow", None, None, "allow user", OK),
    (BASICS, "neither", ALICE, "nothing", None, None, "allow other", ID),
    # The table of implicit denies in other kinds of policies.
    (FLOW, "role ARN, all imply a deny", SESSION, "nothing", "nothing", "nothing", "allow role",
     PB),
    (FLOW, "role ARN, identity", SESSION, "nothing", None, None, "allow role", OK),
    (FLOW, "role ARN, within both", SESSION, "nothing", "allow", "allow", "allow role", OK),
    (FLOW, "role ARN, boundary", SESSION, "allow", "nothing", None, "allow role", PB),
    (FLOW, "role ARN, boundary", SESSION, "nothing", "nothing", "allow", "allow role", PB),
    (FLOW, "role ARN, session", SESSION, "allow", None, "nothing", "allow role", SP),
    (FLOW, "role ARN, session", SESSION, "nothing", "allow", "nothing", "allow role", SP),
    (FLOW, "session ARN, all imply a deny", SESSION, "nothing", "nothing", "nothing",
     "allow session", OK),
    (FLOW, "session ARN, boundary", SESSION, "nothing", "nothing", None, "allow session", OK),
    (FLOW, "session ARN, session", SESSION, "nothing", None, "nothing", "allow session", OK),
    (FLOW, "role and session ARN", SESSION, None, "nothing", None, "allow role, allow session",
     OK),
    (FLOW, "session and role ARN", SESSION, None, "nothing", None, "allow session, allow role",
     OK),
    (FLOW, "user ARN, all imply a deny", ALICE, "nothing", "nothing", None, "allow user", OK),
    (FLOW, "user ARN, boundary", ALICE, "allow", "nothing", None, "allow user", OK),
    (FLOW, "user ARN, no policies", ALICE, None, "nothing", None, "allow user", OK),
    (FLOW, "root ARN", ROOT, None, None, None, "allow root", OK),
    (FLOW, "service principal", SERVICE, None, None, None, "allow service", OK),
    (PRINCIPAL, "everybody, all imply a deny", SESSION, "nothing", "nothing", "nothing",
     "allow everybody", OK),
    (PRINCIPAL, "everybody, boundary", ALICE, "nothing", "nothing", None, "allow everybody", OK),
    # "This delegates authority to the account": its policies have to grant it.
    (PRINCIPAL, "the account", ALICE, "nothing", None, None, "allow account", ID),
    (PRINCIPAL, "the account", SESSION, None, None, None, "allow account", ID),
    (PRINCIPAL, "the account", ALICE, "allow", None, None, "allow account", OK),
    (PRINCIPAL, "the account", ALICE, "allow", "nothing", None, "allow account", PB),
    (PRINCIPAL, "the account", SESSION, "allow", None, "nothing", "allow account", SP),
    (PRINCIPAL, "the account and the role", SESSION, None, None, None,
     "allow account, allow role", OK),
    # Services and who signs nothing have no policies of their own.
    (PRINCIPAL, "a service, no policy", SERVICE, None, None, None, None, RP),
    (PRINCIPAL, "a service, by whoever's policy", SERVICE, "allow", None, None, None, RP),
    (PRINCIPAL, "a service, not named", SERVICE, "allow", None, None, "allow user", RP),
    (PRINCIPAL, "a service, its account named", SERVICE, "allow", None, None, "allow account",
     RP),
    (PRINCIPAL, "a service, everybody", SERVICE, None, None, None, "allow everybody", OK),
    (PRINCIPAL, "a service, denied", SERVICE, None, None, None, "allow service, deny service",
     X_RP),
    (PRINCIPAL, "anonymous, no policy", ANONYMOUS, None, None, None, None, RP),
    (PRINCIPAL, "anonymous, by whoever's policy", ANONYMOUS, "allow", None, None, None, RP),
    (PRINCIPAL, "anonymous, not named", ANONYMOUS, None, None, None, "allow account", RP),
    (PRINCIPAL, "anonymous, everybody", ANONYMOUS, None, None, None, "allow everybody", OK),
    (PRINCIPAL, "anonymous, denied", ANONYMOUS, None, None, None,
     "allow everybody, deny everybody", X_RP),
]  # fmt: skip
# Another account's bucket: "The request is allowed only if both evaluations return Allow."
TWO_ACCOUNTS: list[Row] = [
    (CROSS, "neither", ALICE, None, None, None, None, ID),
    (CROSS, "only the identity", ALICE, "allow", None, None, None, RP),
    (CROSS, "only the identity", SESSION, "allow", None, None, None, RP),
    (CROSS, "only the identity", ALICE, "allow", None, None, "allow other", RP),
    (CROSS, "only the resource", ALICE, "nothing", None, None, "allow user", ID),
    (CROSS, "only the resource", ALICE, None, None, None, "allow everybody", ID),
    (CROSS, "only the resource", SESSION, None, None, None, "allow role", ID),
    (CROSS, "only the resource", SESSION, None, None, None, "allow session", ID),
    (CROSS, "both", ALICE, "allow", None, None, "allow user", OK),
    (CROSS, "both", ALICE, "allow", None, None, "allow account", OK),
    (CROSS, "both", ALICE, "allow", None, None, "allow everybody", OK),
    (CROSS, "both", SESSION, "allow", None, None, "allow role", OK),
    (CROSS, "both", SESSION, "allow", None, None, "allow session", OK),
    (CROSS, "both", SESSION, "allow", None, None, "allow account", OK),
    (CROSS, "both, within all", SESSION, "allow", "allow", "allow", "allow session", OK),
    (CROSS, "not the boundary", ALICE, "allow", "nothing", None, "allow user", PB),
    (CROSS, "not the boundary", SESSION, "allow", "nothing", "allow", "allow session", PB),
    (CROSS, "not the session policy", SESSION, "allow", "allow", "nothing", "allow session", SP),
    (CROSS, "the identity denies", ALICE, "both", None, None, "allow user", X_ID),
    (CROSS, "the boundary denies", ALICE, "allow", "both", None, "allow user", X_PB),
    (CROSS, "the session policy denies", SESSION, "allow", None, "both", "allow role", X_SP),
    (CROSS, "the resource denies", ALICE, "allow", None, None, "allow user, deny account", X_RP),
    (CROSS, "the resource denies everybody", ALICE, "allow", None, None, "deny everybody", X_RP),
    (CROSS, "root, by nothing", ROOT, None, None, None, None, RP),
    (CROSS, "root, not named", ROOT, None, None, None, "allow other", RP),
    (CROSS, "root, named", ROOT, None, None, None, "allow root", OK),
    (CROSS, "root, its account", ROOT, None, None, None, "allow account", OK),
    (CROSS, "root, everybody", ROOT, None, None, None, "allow everybody", OK),
    (CROSS, "root, denied", ROOT, None, None, None, "allow root, deny everybody", X_RP),
    (CROSS, "a service", SERVICE, None, None, None, "allow service", OK),
    (CROSS, "a service", SERVICE, None, None, None, None, RP),
    (CROSS, "anonymous", ANONYMOUS, None, None, None, "allow everybody", OK),
    (CROSS, "anonymous", ANONYMOUS, None, None, None, "allow account", RP),
]

# Which statements allowed it.
ALL = of_resource("allow role, allow other")
SIDS = {"identity": document(statement(Sid="id"), statement(Sid="id2", Action="ec2:*")),
        "boundary": document(statement(Sid="pb")),
        "session": document(statement(Sid="sp"))}  # fmt: skip
BY = [
    Case(FLOW, "by identity, boundary, session policy", OK, SIDS, who=SESSION,
         by=("id", "pb", "sp")),
    Case(FLOW, "by the resource's policy too", OK, {**SIDS, "resource": ALL}, who=SESSION,
         by=("allow role", "id", "pb", "sp")),
    Case(FLOW, "by the resource's policy alone", OK,
         {**SIDS, "resource": of_resource("allow session")}, who=SESSION, by=("allow session",)),
    Case(CROSS, "by both", OK, {**SIDS, "resource": of_resource("allow session")}, who=SESSION,
         owner=OTHER, by=("allow session", "id", "pb", "sp")),
    Case(FLOW, "root, by nothing", OK, {}, who=ROOT, by=()),
    Case(FLOW, "of all kinds, the denies", X_RP,
         {"identity": document(statement("Deny", Sid="id")),
          "resource": of_resource("deny account"),
          "boundary": document(statement("Deny", Sid="pb")),
          "session": document(statement("Deny", Sid="sp"))},
         who=SESSION, by=("deny account", "id", "pb", "sp")),
    Case(CROSS, "the caller's own account is no other", OK, {"identity": document(statement())},
         owner=ACCOUNT),
    Case(FLOW, "several session policies are one", OK,
         {"identity": document(statement()),
          "session": [document(*SAID["nothing"]), document(*SAID["allow"])]}, who=SESSION),
]  # fmt: skip

# Assuming a role: a trust policy "must explicitly allow access".
ASSUME, ROLE = "sts:AssumeRole", "arn:aws:iam::111122223333:role/target"
MAY = document(statement(Action=ASSUME))
T_ID, T_TP = implicit("identity", ASSUME), implicit("trust", ASSUME)
T_PB, T_SP = implicit("boundary", ASSUME), implicit("session", ASSUME)


def trust(*says: str) -> dict[str, Any]:
    return document(
        *(
            {"Effect": each.split()[0].title(), "Principal": NAMES[each.split()[1]],
             "Action": ASSUME}
            for each in says
        )
    )  # fmt: skip


def assumes(
    name: str, expected: str, who: Principal, trusts: Any, owner: str | None = None, **own: Any
) -> Case:
    given = {"trust": trusts, **own}
    return Case(FLOW, f"role: {name}", expected, given, ASSUME, ROLE, who, owner=owner)


TRUSTS = [
    assumes("trusted itself", OK, ALICE, trust("allow user")),
    assumes("trusted and allowed", OK, ALICE, trust("allow account"), identity=MAY),
    assumes("its account is trusted", T_ID, ALICE, trust("allow account")),
    assumes("allowed, not trusted", T_TP, ALICE, trust("allow other"), identity=MAY),
    assumes("neither", T_ID, ALICE, trust("allow other")),
    assumes("its role is trusted", OK, SESSION, trust("allow role")),
    assumes("its role is trusted, within a boundary", T_PB, SESSION, trust("allow role"),
            boundary=document()),
    assumes("its role is trusted, within a session policy", T_SP, SESSION, trust("allow role"),
            session=document()),
    assumes("its session is trusted", OK, SESSION, trust("allow session"), boundary=document()),
    assumes("denied by the trust policy", EXPLICIT["trust"], ALICE,
            trust("allow user", "deny account"), identity=MAY),
    assumes("denied by the identity", X_ID, ALICE, trust("allow user"),
            identity=document(statement("Deny"))),
    assumes("in another account, both", OK, ALICE, trust("allow account"), OTHER, identity=MAY),
    assumes("in another account, itself alone", T_ID, ALICE, trust("allow user"), OTHER),
    assumes("in another account, allowed alone", T_TP, ALICE, trust("allow other"), OTHER,
            identity=MAY),
    assumes("root of another account", OK, ROOT, trust("allow account"), OTHER),
    assumes("root of another account, not trusted", T_TP, ROOT, trust("allow other"), OTHER),
    assumes("a service", OK, SERVICE, trust("allow service")),
    assumes("another service", T_TP, SERVICE, trust("allow user")),
]  # fmt: skip

# Root of the bucket's account keeps these three, whatever the policy denies; nobody else does.
SHUT = document(statement("Deny", Principal="*"))
LOCKED = [
    Case(LOCKED_OUT, f"{who.arn}, {action}, bucket of {owner}", expected, {"resource": SHUT},
         action, "arn:aws:s3:::bucket", who, owner=owner)
    for action, who, owner, expected in (
        ("s3:GetBucketPolicy", ROOT, ACCOUNT, OK),
        ("s3:PutBucketPolicy", ROOT, ACCOUNT, OK),
        ("s3:DeleteBucketPolicy", ROOT, ACCOUNT, OK),
        ("s3:DeleteBucketPolicy", ROOT, None, OK),
        ("s3:DeleteBucket", ROOT, ACCOUNT, X_RP),
        ("s3:GetObject", ROOT, ACCOUNT, X_RP),
        ("s3:DeleteBucketPolicy", root(OTHER), ACCOUNT, X_RP),
        ("s3:DeleteBucketPolicy", ALICE, ACCOUNT, X_RP),
        ("s3:DeleteBucketPolicy", SESSION, ACCOUNT, X_RP),
    )
]  # fmt: skip

CASES = [
    *rows(ONE_ACCOUNT),
    *rows(ONE_ACCOUNT, ACCOUNT)[:20],
    *rows(TWO_ACCOUNTS, OTHER),
    *BY,
    *TRUSTS,
    *LOCKED,
]
