"""Policy variables, their defaults, and the version that they need."""

from typing import Any

from policy_cases.case import (
    EXPLICIT,
    GUIDE,
    MATCH,
    NEW,
    NO,
    NOBODY,
    OLD,
    Case,
    Values,
    document,
    statement,
)

PAGE = f"{GUIDE}reference_policies_variables.html"
VERSION = f"{GUIDE}reference_policies_elements_version.html"
Row = tuple[str | None, dict[str, Any], dict[str, Values], str, bool]

ALICE: dict[str, Values] = {"aws:username": "alice"}
HOME, KEY = "arn:aws:s3:::b/alice/x", "s3:prefix"


def on(pattern: str | list[str]) -> dict[str, Any]:
    return {"Resource": pattern}


def but(pattern: str | list[str]) -> dict[str, Any]:
    return {"NotResource": pattern}


def where(operator: str, wanted: Any) -> dict[str, Any]:
    return {"Condition": {operator: {KEY: wanted}}}


def given(prefix: Values | None, **more: Values) -> dict[str, Values]:
    made = {} if prefix is None else {KEY: prefix}
    return {**made, **{f"aws:{key}": value for key, value in more.items()}}


def bucket(name: str) -> str:
    return f"arn:aws:s3:::{name}"


ROWS: list[Row] = [
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), ALICE, HOME, MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": "bob"}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${AWS:UserName}/*"), ALICE, HOME, MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {}, bucket("b//x"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": ""}, bucket("b//x"), MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": ("alice",)}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {}, bucket("b/${aws:username}/x"), NO),
    (NEW, on("arn:aws:s3:::${aws:username}"), ALICE, bucket("alice"), MATCH),
    (NEW, on("arn:aws:s3:::${aws:username}"), ALICE, bucket("alice2"), NO),
    (NEW, on("arn:aws:s3:::${aws:username}-${aws:userid}"), {**ALICE, "aws:userid": "AI"},
     bucket("alice-AI"), MATCH),
    (NEW, on("arn:aws:s3:::${aws:username}-${aws:userid}"), ALICE, bucket("alice-AI"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:PrincipalTag/department}"),
     {"aws:principaltag/department": "hr"}, bucket("b/hr"), MATCH),
    (NEW, on(["arn:aws:s3:::b/${aws:userid}/*", "arn:aws:s3:::b/alice/*"]), {}, HOME, MATCH),
    (NEW, on(["arn:aws:s3:::b/${aws:userid}/*", "arn:aws:s3:::b/${aws:username}/*"]), ALICE,
     HOME, MATCH),
    (NEW, on(["arn:aws:s3:::b/${aws:username}/*", "arn:aws:s3:::b/${aws:userid}/*"]), ALICE,
     HOME, MATCH),
    (NEW, on("arn:aws:sqs:us-east-2:*:${aws:username}-queue"), ALICE,
     "arn:aws:sqs:us-east-2:111122223333:alice-queue", MATCH),
    # "You can't use a variable to replace parts of the ARN before the fifth colon."
    (NEW, on("arn:aws:sqs:us-east-2:${aws:PrincipalAccount}:q"),
     {"aws:principalaccount": "111122223333"}, "arn:aws:sqs:us-east-2:111122223333:q", NO),
    (NEW, on("arn:aws:sqs:${aws:RequestedRegion}:1:q"), {"aws:requestedregion": "r"},
     "arn:aws:sqs:r:1:q", NO),
    (NEW, on("${aws:username}"), {"aws:username": HOME}, HOME, NO),
    (NEW, on("arn:aws:s3:${aws:username}"), {"aws:username": "::b/alice/x"}, HOME, NO),
    # What a variable stands for is text.
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": "*"}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": "*"}, bucket("b/*/x"), MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": "?lice"}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${aws:username}/*"), {"aws:username": "${aws:userid}",
     "aws:userid": "alice"}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${*}"), {}, bucket("b/*"), MATCH),
    (NEW, on("arn:aws:s3:::b/${*}"), {}, bucket("b/x"), NO),
    (NEW, on("arn:aws:s3:::b/${*}/*"), {}, bucket("b/*/x"), MATCH),
    (NEW, on("arn:aws:s3:::b/${?}"), {}, bucket("b/?"), MATCH),
    (NEW, on("arn:aws:s3:::b/${?}"), {}, bucket("b/x"), NO),
    (NEW, on("arn:aws:s3:::b/${$}{x}"), {}, bucket("b/${x}"), MATCH),
    (NEW, on("arn:aws:s3:::b/${"), {}, bucket("b/${"), MATCH),
    (NEW, on("arn:aws:s3:::b/${}"), {}, bucket("b/${}"), NO),
    (NEW, on("arn:aws:s3:::b/$x"), {"x": "y"}, bucket("b/$x"), MATCH),
    (NEW, on("arn:aws:s3:::b/{aws:username}"), ALICE, bucket("b/{aws:username}"), MATCH),
    # Default values.
    (NEW, on("arn:aws:s3:::b/${aws:username, 'shared'}/*"), {}, bucket("b/shared/x"), MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username, 'shared'}/*"), {}, HOME, NO),
    (NEW, on("arn:aws:s3:::b/${aws:username, 'shared'}/*"), ALICE, HOME, MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username, 'shared'}/*"), ALICE, bucket("b/shared/x"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:username, ''}x"), {}, bucket("b/x"), MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username, '*'}"), {}, bucket("b/x"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:username, 'a, b'}"), {}, bucket("b/a, b"), MATCH),
    (NEW, on("arn:aws:s3:::b/${aws:username,'shared'}/*"), {}, bucket("b/shared/x"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:username, shared}/*"), {}, bucket("b/shared/x"), NO),
    (NEW, on("arn:aws:s3:::b/${aws:username, 'd'}"), {"aws:username": ("a", "b")},
     bucket("b/d"), NO),
    # NotResource: with a variable that has no value, the statement is not valid.
    (NEW, but("arn:aws:s3:::b/${aws:username}/*"), ALICE, HOME, NO),
    (NEW, but("arn:aws:s3:::b/${aws:username}/*"), ALICE, bucket("b/bob/x"), MATCH),
    (NEW, but("arn:aws:s3:::b/${aws:username}/*"), {}, bucket("b/bob/x"), NO),
    (NEW, but(["arn:aws:s3:::b/${aws:username}/*", "arn:aws:s3:::c"]), {}, bucket("c"), NO),
    # Conditions: string and ARN operators, and Bool.
    (NEW, where("StringEquals", "${aws:username}"), given("alice", username="alice"), HOME, MATCH),
    (NEW, where("StringEquals", "${aws:username}"), given("bob", username="alice"), HOME, NO),
    (NEW, where("StringEquals", "${aws:username}"), given("alice"), HOME, NO),
    (NEW, where("StringEquals", "${aws:username}"), given("${aws:username}"), HOME, NO),
    (NEW, where("StringEquals", ["${aws:username}", "x"]), given("x"), HOME, MATCH),
    (NEW, where("StringEquals", ["x", "${aws:username}"]), given("alice", username="alice"),
     HOME, MATCH),
    (NEW, where("StringEquals", "a${*}"), given("a*"), HOME, MATCH),
    (NEW, where("StringEquals", "${aws:username, 'me'}"), given("me"), HOME, MATCH),
    (NEW, where("StringEqualsIgnoreCase", "${aws:username}"), given("ALICE", username="Alice"),
     HOME, MATCH),
    (NEW, where("StringNotEqualsIgnoreCase", "${aws:username}"), given("ALICE", username="Alice"),
     HOME, NO),
    (NEW, where("StringLike", "${aws:username}/*"), given("alice/x", username="alice"), HOME,
     MATCH),
    (NEW, where("StringLike", "${aws:username}/*"), given("bob/x", username="*"), HOME, NO),
    (NEW, where("StringLike", "a${*}b*"), given("a*bc"), HOME, MATCH),
    (NEW, where("StringLike", "a${*}b*"), given("axbc"), HOME, NO),
    (NEW, where("StringLike", "a${?}"), given("ab"), HOME, NO),
    (NEW, where("StringLikeIfExists", "${aws:username}"), given(None), HOME, MATCH),
    (NEW, where("StringNotEquals", "${aws:username}"), given("bob", username="alice"), HOME,
     MATCH),
    (NEW, where("StringNotEquals", "${aws:username}"), given("alice", username="alice"), HOME,
     NO),
    (NEW, where("StringNotEquals", "${aws:username}"), given("alice"), HOME, NO),
    (NEW, where("StringNotEquals", ["x", "${aws:username}"]), given("alice"), HOME, NO),
    (NEW, where("StringNotLike", "${aws:username}/*"), given("bob/x", username="alice"), HOME,
     MATCH),
    (NEW, where("StringNotLike", "${aws:username}/*"), given("bob/x"), HOME, NO),
    (NEW, where("ForAllValues:StringEquals", ["${aws:username}", "x"]),
     given(("x", "alice"), username="alice"), HOME, MATCH),
    (NEW, where("ForAnyValue:StringLike", "${aws:username}-*"),
     given(("x", "alice-1"), username="alice"), HOME, MATCH),
    (NEW, where("ForAnyValue:StringNotEquals", "${aws:username}"), given(("x",)), HOME, NO),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/alice", username="alice"), HOME, MATCH),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/bob", username="alice"), HOME, NO),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/alice"), HOME, NO),
    (NEW, where("ArnNotLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/bob"), HOME, NO),
    (NEW, where("ArnNotLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/bob", username="alice"), HOME, MATCH),
    (NEW, where("ArnEquals", "arn:aws:iam::${aws:PrincipalAccount}:user/a"),
     given("arn:aws:iam::1:user/a", principalaccount="1"), HOME, MATCH),
    (NEW, where("ArnLike", "arn:aws:iam::${aws:username}:user/a"),
     given("arn:aws:iam::1:role:user/a", username="1:role"), HOME, NO),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}"),
     given("arn:aws:iam::1:user/a:b", username="a:b"), HOME, MATCH),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}?"),
     given("arn:aws:iam::1:user/alice2", username="alice"), HOME, MATCH),
    (NEW, where("ArnLike", "arn:aws:iam::1:user/${aws:username}?"),
     given("arn:aws:iam::1:user/2", username="alice"), HOME, NO),
    (NEW, where("StringLike", ["x*", "${aws:username}?"]), given("alice2", username="alice"),
     HOME, MATCH),
    (NEW, where("StringLike", ["x*", "${aws:username}?"]), given("x2", username="alice"), HOME,
     MATCH),
    (NEW, where("Bool", "${aws:SecureTransport}"), given("true", securetransport="true"), HOME,
     MATCH),
    (NEW, where("Bool", "${aws:SecureTransport}"), given("true", securetransport="false"), HOME,
     NO),
    (NEW, where("Bool", "${aws:SecureTransport}"), given("true"), HOME, NO),
    (NEW, where("Null", "true"), given(None, username="alice"), HOME, MATCH),
    # The earlier version, and none: "treated as literal strings".
    (OLD, on("arn:aws:s3:::b/${aws:username}/*"), ALICE, HOME, NO),
    (OLD, on("arn:aws:s3:::b/${aws:username}/*"), ALICE, bucket("b/${aws:username}/x"), MATCH),
    (None, on("arn:aws:s3:::b/${aws:username}/*"), ALICE, HOME, NO),
    (None, on("arn:aws:s3:::b/${aws:username}/*"), ALICE, bucket("b/${aws:username}/x"), MATCH),
    (OLD, on("arn:aws:s3:::b/*"), ALICE, HOME, MATCH),
    (OLD, but("arn:aws:s3:::b/${aws:username}/*"), ALICE, HOME, MATCH),
    (OLD, where("StringEquals", "${aws:username}"), given("alice", username="alice"), HOME, NO),
    (OLD, where("StringEquals", "${aws:username}"), given("${aws:username}"), HOME, MATCH),
    (OLD, where("StringLike", "${aws:username}*"), given("alice", username="alice"), HOME, NO),
    (OLD, where("StringLike", "${*}"), given("${x}"), HOME, MATCH),
    (OLD, where("StringNotEquals", "${aws:username}"), given("alice", username="alice"), HOME,
     MATCH),
    (OLD, where("ArnLike", "arn:aws:iam::1:user/${aws_username}"),
     given("arn:aws:iam::1:user/${aws_username}"), HOME, MATCH),
    (OLD, where("StringEqualsIgnoreCase", "${A}"), given("${a}"), HOME, MATCH),
]  # fmt: skip


def both(version: str | None, elements: Any, keys: Any, resource: str, applies: bool) -> list[Case]:
    page = PAGE if version == NEW else VERSION
    name = f"{version} {elements} {keys} {resource}"
    allow, deny = statement(**elements), statement("Deny", **elements)
    found = "allowed" if applies else NOBODY
    return [
        Case(
            page, f"{name}: Allow", found, {"identity": document(allow, version=version)},
            resource=resource, keys=keys,
        ),
        Case(
            page, f"{name}: Deny", EXPLICIT["identity"] if applies else "allowed",
            {"identity": [document(statement()), document(deny, version=version)]},
            resource=resource, keys=keys,
        ),
    ]  # fmt: skip


# A policy value that has variables where they aren't supported can't be read: nothing is allowed.
PLAIN = [
    Case(PAGE, f"{operator} has no variables", NOBODY,
         {"identity": document(statement(**where(operator, "${aws:x}")))},
         keys=given(value, x=value))
    for operator, value in (
        ("NumericEquals", "10"),
        ("DateEquals", "2026-11-27T12:00:00Z"),
        ("BinaryEquals", "QUJD"),
        ("IpAddress", "10.0.0.1"),
        ("Null", "false"),
    )
]  # fmt: skip
CASES = [*(case for row in ROWS for case in both(*row)), *PLAIN]
