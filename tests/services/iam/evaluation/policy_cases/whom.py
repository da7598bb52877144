"""Principal and NotPrincipal: of buckets, and of roles' trust policies."""

from typing import Any

from cloche.core.identity import Principal
from policy_cases.case import (
    ACCOUNT,
    ALICE,
    ANONYMOUS,
    EXPLICIT,
    GUIDE,
    MATCH,
    NO,
    OTHER,
    ROOT,
    SERVICE,
    SESSION,
    Case,
    document,
    implicit,
    root,
    service,
    session,
    statement,
    user,
)

PAGE = f"{GUIDE}reference_policies_elements_principal.html"
NOT_PAGE = f"{GUIDE}reference_policies_elements_notprincipal.html"
Row = tuple[Any, Principal, bool]  # the element, who asks, whether the statement is about it

BOB, ROLE = user("Bob", OTHER), "arn:aws:iam::111122223333:role/r"
AUDIT = session("cross-account-read-only-role", "cross-account-audit-app", OTHER)
ME, STS = "arn:aws:iam::111122223333:user/alice", "arn:aws:sts::111122223333:assumed-role/r/s"
HERE, THERE = f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{OTHER}:root"

# Who of its own account is granted a bucket, with no other policy.
GRANTS: list[Row] = [
    ("*", ALICE, MATCH),
    ("*", SESSION, MATCH),
    ("*", ANONYMOUS, MATCH),
    ("*", SERVICE, MATCH),
    ({"AWS": "*"}, ALICE, MATCH),
    ({"AWS": "*"}, SESSION, MATCH),
    ({"AWS": "*"}, ANONYMOUS, MATCH),
    ({"AWS": "*"}, SERVICE, NO),
    ({"AWS": ["*"]}, ALICE, MATCH),
    ({"Service": "*"}, SERVICE, MATCH),
    ({"Service": "*"}, ALICE, NO),
    ({"Service": "*"}, ANONYMOUS, NO),
    ({"AWS": ME}, ALICE, MATCH),
    ({"AWS": [STS, ME]}, ALICE, MATCH),
    ({"AWS": ME}, user("Alice"), NO),
    ({"AWS": ME}, user("alice", OTHER), NO),
    ({"AWS": ME}, user("bob"), NO),
    ({"AWS": ME}, SESSION, NO),
    ({"AWS": ME}, ANONYMOUS, NO),
    ({"AWS": "arn:aws:iam::111122223333:user/*"}, ALICE, NO),
    ({"AWS": "arn:aws:iam::111122223333:user/alic?"}, ALICE, NO),
    ({"AWS": ROLE}, SESSION, MATCH),
    ({"AWS": ROLE}, session("r", "another"), MATCH),
    ({"AWS": ROLE}, session("r2"), NO),
    ({"AWS": ROLE}, ALICE, NO),
    ({"AWS": ROLE}, ANONYMOUS, NO),
    ({"AWS": STS}, SESSION, MATCH),
    ({"AWS": STS}, session("r", "another"), NO),
    ({"AWS": "arn:aws:sts::111122223333:assumed-role/r/*"}, SESSION, NO),
    ({"AWS": "AIDAEXAMPLE"}, ALICE, NO),
    # An account's own administrators have to grant it in turn.
    ({"AWS": HERE}, ALICE, NO),
    ({"AWS": ACCOUNT}, ALICE, NO),
    ({"AWS": HERE}, SESSION, NO),
    ({"AWS": HERE}, ANONYMOUS, NO),
    ({"Service": "sagemaker.amazonaws.com"}, SERVICE, MATCH),
    ({"Service": ["ecs.amazonaws.com", "sagemaker.amazonaws.com"]}, SERVICE, MATCH),
    ({"Service": "lambda.amazonaws.com"}, SERVICE, NO),
    ({"Service": "sagemaker.amazonaws.com"}, ALICE, NO),
    ({"AWS": "sagemaker.amazonaws.com"}, SERVICE, NO),
    ({"AWS": ACCOUNT}, SERVICE, NO),
    ({"AWS": HERE}, SERVICE, NO),
    ({"AWS": ME, "Service": "sagemaker.amazonaws.com"}, SERVICE, MATCH),
    ({"AWS": ME, "Service": "sagemaker.amazonaws.com"}, ALICE, MATCH),
    ({"Federated": "accounts.google.com"}, ALICE, NO),
    ({"CanonicalUser": "79a59df900b949e5"}, ALICE, NO),
    ({"Federated": "*"}, ALICE, NO),
    ({}, ALICE, NO),
]
# Of whom a Deny speaks.
DENIES: list[Row] = [
    ("*", ALICE, MATCH),
    ("*", SERVICE, MATCH),
    ("*", ROOT, MATCH),
    ({"AWS": "*"}, SESSION, MATCH),
    ({"AWS": ME}, ALICE, MATCH),
    ({"AWS": ME}, user("bob"), NO),
    ({"AWS": ROLE}, SESSION, MATCH),
    ({"AWS": STS}, SESSION, MATCH),
    ({"AWS": STS}, session("r", "another"), NO),
    ({"AWS": HERE}, ALICE, MATCH),
    ({"AWS": ACCOUNT}, ALICE, MATCH),
    ({"AWS": ACCOUNT}, SESSION, MATCH),
    ({"AWS": HERE}, ROOT, MATCH),
    ({"AWS": ACCOUNT}, ROOT, MATCH),
    ({"AWS": THERE}, ALICE, NO),
    ({"AWS": OTHER}, ROOT, NO),
    ({"AWS": ME}, ROOT, NO),
    ({"Service": "sagemaker.amazonaws.com"}, SERVICE, MATCH),
    ({"Service": "sagemaker.amazonaws.com"}, ALICE, NO),
]
BOB_ARN, AUDIT_ARN, AUDIT_ROLE = BOB.arn, AUDIT.arn, AUDIT.role_arn
# Deny with NotPrincipal: all but those whose account, role and own name are there.
BUT: list[Row] = [
    ({"AWS": [BOB_ARN, THERE]}, BOB, NO),
    ({"AWS": [BOB_ARN, OTHER]}, BOB, NO),
    ({"AWS": [BOB_ARN, THERE]}, user("Ann", OTHER), MATCH),
    ({"AWS": [BOB_ARN, THERE]}, ALICE, MATCH),
    ({"AWS": [BOB_ARN, THERE]}, ANONYMOUS, MATCH),
    ({"AWS": [BOB_ARN, THERE]}, root(OTHER), NO),
    ({"AWS": [BOB_ARN, OTHER]}, root(OTHER), NO),
    ({"AWS": [BOB_ARN, THERE]}, root(), MATCH),
    ({"AWS": BOB_ARN}, BOB, MATCH),
    ({"AWS": THERE}, BOB, MATCH),
    ({"AWS": [AUDIT_ARN, AUDIT_ROLE, THERE]}, AUDIT, NO),
    ({"AWS": [AUDIT_ARN, THERE]}, AUDIT, MATCH),
    ({"AWS": [AUDIT_ROLE, THERE]}, AUDIT, MATCH),
    ({"AWS": [AUDIT_ARN, AUDIT_ROLE]}, AUDIT, MATCH),
    ({"AWS": [AUDIT_ARN, AUDIT_ROLE, THERE]}, session(AUDIT_ROLE, "other", OTHER), MATCH),
    ({"AWS": "*"}, BOB, NO),
    ("*", BOB, NO),
    ("*", SERVICE, NO),
    ({"AWS": "*"}, SERVICE, MATCH),
    ({"Service": "sagemaker.amazonaws.com"}, SERVICE, NO),
    ({"Service": "sagemaker.amazonaws.com"}, service("lambda.amazonaws.com"), MATCH),
    ({"Service": "sagemaker.amazonaws.com"}, BOB, MATCH),
]
# Allow with NotPrincipal: everybody else, who is nobody too.
OTHERS: list[Row] = [
    ({"AWS": ME}, user("bob"), MATCH),
    ({"AWS": ME}, SESSION, MATCH),
    ({"AWS": ME}, ANONYMOUS, MATCH),
    ({"AWS": ME}, SERVICE, MATCH),
    ({"AWS": ME}, ALICE, NO),
    ({"AWS": HERE}, ALICE, NO),
    ({"AWS": ROLE}, SESSION, NO),
    ({"AWS": STS}, SESSION, NO),
    ({"AWS": STS}, session("r", "another"), MATCH),
    ({"Service": "sagemaker.amazonaws.com"}, SERVICE, NO),
    ({"AWS": "*"}, ALICE, NO),
    ({"AWS": "*"}, ANONYMOUS, NO),
]


def refused(who: Principal) -> str:
    """The text where nothing allows: whose own policies count, by those."""
    return implicit("resource" if who.kind in ("service", "anonymous") else "identity")


def allows(page: str, element: str, rows: list[Row]) -> list[Case]:
    return [
        Case(
            page, f"Allow, {element} {names}, {who.arn}", "allowed" if applies else refused(who),
            {"resource": document(statement(**{element: names}))}, who=who,
        )
        for names, who, applies in rows
    ]  # fmt: skip


def denies(page: str, element: str, rows: list[Row]) -> list[Case]:
    return [
        Case(
            page, f"Deny, {element} {names}, {who.arn}",
            EXPLICIT["resource"] if applies else "allowed",
            {
                "resource": document(
                    statement(Principal="*"), statement("Deny", **{element: names})
                ),
                "identity": document(statement()),
            },
            who=who,
        )
        for names, who, applies in rows
    ]  # fmt: skip


# What a role's trust policy says, which has no Resource: of a caller who may call sts:AssumeRole.
ASSUME = "sts:AssumeRole"
TRUST: list[tuple[Any, Principal, str]] = [
    ({"AWS": ME}, ALICE, "allowed"),
    ({"AWS": HERE}, ALICE, "allowed"),
    ({"AWS": ACCOUNT}, SESSION, "allowed"),
    ({"AWS": ROLE}, SESSION, "allowed"),
    ("*", ALICE, "allowed"),
    ({"AWS": THERE}, ALICE, implicit("trust", ASSUME)),
    ({"AWS": ROLE}, ALICE, implicit("trust", ASSUME)),
    ({"Service": "sagemaker.amazonaws.com"}, ALICE, implicit("trust", ASSUME)),
    ({"Service": "sagemaker.amazonaws.com"}, SERVICE, "allowed"),
    ({"Service": "lambda.amazonaws.com"}, SERVICE, implicit("trust", ASSUME)),
    ({"AWS": "*"}, SERVICE, implicit("trust", ASSUME)),
    ("*", SERVICE, "allowed"),
    ({"AWS": HERE}, ROOT, "allowed"),
    ({"AWS": THERE}, ROOT, implicit("trust", ASSUME)),
]


def trusting(**elements: Any) -> dict[str, Any]:
    return document({"Effect": "Allow", "Action": ASSUME, **elements})


def assume(name: str, expected: str, trust: Any, who: Principal = ALICE, **more: Any) -> Case:
    policies = {"trust": trust, "identity": document(statement(Action="sts:*"))}
    return Case(PAGE, f"trust: {name}", expected, policies, ASSUME, ROLE, who, **more)


EXTERNAL = {"StringEquals": {"sts:ExternalId": "12345"}}
MFA = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
TRUSTS = [
    *(assume(f"{names}, {who.arn}", expected, trusting(Principal=names), who)
      for names, who, expected in TRUST),
    assume("without a principal", implicit("trust", ASSUME), trusting()),
    assume("another action", implicit("trust", ASSUME),
           trusting(Principal="*", Action="sts:TagSession")),
    assume("the external id", "allowed", trusting(Principal="*", Condition=EXTERNAL),
           keys={"sts:externalid": "12345"}),
    assume("another external id", implicit("trust", ASSUME),
           trusting(Principal="*", Condition=EXTERNAL), keys={"sts:externalid": "1"}),
    assume("no external id", implicit("trust", ASSUME),
           trusting(Principal="*", Condition=EXTERNAL), missing=("sts:ExternalId",)),
    assume("with MFA", "allowed", trusting(Principal="*", Condition=MFA),
           keys={"aws:multifactorauthpresent": "true"}),
    assume("without MFA", implicit("trust", ASSUME), trusting(Principal="*", Condition=MFA)),
    assume("a Deny", EXPLICIT["trust"],
           document(trusting(Principal="*")["Statement"][0],
                    {"Effect": "Deny", "Principal": {"AWS": ME}, "Action": ASSUME})),
    assume("a Deny of others", "allowed",
           document(trusting(Principal="*")["Statement"][0],
                    {"Effect": "Deny", "NotPrincipal": {"AWS": [ME, HERE]}, "Action": ASSUME})),
    assume("a Deny of others to one of them", EXPLICIT["trust"],
           document(trusting(Principal="*")["Statement"][0],
                    {"Effect": "Deny", "NotPrincipal": {"AWS": [ME, HERE]}, "Action": ASSUME}),
           who=user("bob")),
    assume("NotPrincipal", "allowed", trusting(NotPrincipal={"AWS": ME}), who=user("bob")),
    assume("NotPrincipal, that one", implicit("trust", ASSUME),
           trusting(NotPrincipal={"AWS": ME})),
]  # fmt: skip
# Where there has to be a principal, and where there can't be.
ODD = [
    Case(PAGE, "a bucket's statement without a principal", refused(ALICE),
         {"resource": document(statement())}),
    Case(PAGE, "a bucket's Deny without a principal", "allowed",
         {"resource": document(statement("Deny")), "identity": document(statement())}),
    Case(PAGE, "an identity's statement without a resource", refused(ALICE),
         {"identity": document({"Effect": "Allow", "Action": "*"})}),
]  # fmt: skip
CASES = [
    *allows(PAGE, "Principal", GRANTS),
    *denies(PAGE, "Principal", DENIES),
    *denies(NOT_PAGE, "NotPrincipal", BUT),
    *allows(NOT_PAGE, "NotPrincipal", OTHERS),
    *TRUSTS,
    *ODD,
]
