"""Several values, several keys, several operators; and what can't be evaluated."""

from typing import Any

from policy_cases.case import (
    EXPLICIT,
    GUIDE,
    MATCH,
    NO,
    NOBODY,
    Case,
    Row,
    condition,
    document,
    statement,
)

SETS = f"{GUIDE}reference_policies_condition-single-vs-multi-valued-context-keys.html"
LOGIC = f"{GUIDE}reference_policies_condition-logic-multiple-context-keys-or-values.html"
KEYS = f"{GUIDE}reference_policies_elements_condition.html"
GRAMMAR = f"{GUIDE}reference_policies_evaluation-logic.html"
TWO = ["PostDateTime", "Message"]

SET: list[Row] = [
    ("ForAllValues:StringEquals", TWO, ("PostDateTime", "Message"), MATCH),
    ("ForAllValues:StringEquals", TWO, ("Message",), MATCH),
    ("ForAllValues:StringEquals", TWO, "Message", MATCH),
    ("ForAllValues:StringEquals", TWO, ("PostDateTime", "ID"), NO),
    ("ForAllValues:StringEquals", TWO, ("ID", "PostDateTime"), NO),
    ("ForAllValues:StringEquals", TWO, "ID", NO),
    ("ForAllValues:StringEquals", TWO, None, MATCH),
    ("ForAllValues:StringEquals", TWO, (), MATCH),
    ("ForAllValues:StringEquals", TWO, "", MATCH),
    ("ForAllValues:StringEquals", TWO, ("", "Message"), NO),
    ("ForAllValues:StringEqualsIfExists", TWO, None, MATCH),
    ("ForAllValues:StringEqualsIfExists", TWO, ("ID",), NO),
    ("ForAllValues:StringEqualsIgnoreCase", TWO, ("MESSAGE", "postdatetime"), MATCH),
    ("ForAllValues:StringEqualsIgnoreCase", TWO, ("MESSAGE", "id"), NO),
    ("ForAllValues:StringLike", ["key1*"], ("key1", "key12"), MATCH),
    ("ForAllValues:StringLike", ["key1*"], ("key1", "key2"), NO),
    ("ForAllValues:StringLike", ["key1*"], None, MATCH),
    ("ForAllValues:StringNotEquals", TWO, ("ID", "UserName"), MATCH),
    ("ForAllValues:StringNotEquals", TWO, ("ID", "Message"), NO),
    ("ForAllValues:StringNotEquals", TWO, ("PostDateTime", "Message"), NO),
    ("ForAllValues:StringNotEquals", TWO, None, MATCH),
    ("ForAllValues:StringNotLike", ["key1*", "key2*"], ("key3",), MATCH),
    ("ForAllValues:StringNotLike", ["key1*", "key2*"], ("key3", "key22"), NO),
    ("ForAllValues:NumericLessThan", "10", ("1", "9"), MATCH),
    ("ForAllValues:NumericLessThan", "10", ("1", "10"), NO),
    ("ForAllValues:DateLessThan", "2026", ("2025-01-01", "2024"), MATCH),
    ("ForAllValues:DateLessThan", "2026", ("2025-01-01", "2027"), NO),
    ("ForAllValues:Bool", "true", ("true", "true"), MATCH),
    ("ForAllValues:Bool", "true", ("true", "false"), NO),
    ("ForAllValues:BinaryEquals", "QUJD", ("QUJD", "QUJD"), MATCH),
    ("ForAllValues:IpAddress", "10.0.0.0/8", ("10.0.0.1", "10.255.0.1"), MATCH),
    ("ForAllValues:IpAddress", "10.0.0.0/8", ("10.0.0.1", "11.0.0.1"), NO),
    ("ForAllValues:ArnLike", "arn:aws:iam::*:role/a*", ("arn:aws:iam::1:role/ab",), MATCH),
    ("ForAllValues:ArnEquals", "arn:aws:iam::*:role/a*", ("arn:aws:iam::1:role/b",), NO),
    ("ForAllValues:ArnNotLike", "arn:aws:iam::*:role/a*", ("arn:aws:iam::1:role/b",), MATCH),
    ("ForAnyValue:StringEquals", TWO, ("UserName", "Message"), MATCH),
    ("ForAnyValue:StringEquals", TWO, ("Message", "UserName"), MATCH),
    ("ForAnyValue:StringEquals", TWO, "Message", MATCH),
    ("ForAnyValue:StringEquals", TWO, ("UserName", "ID"), NO),
    ("ForAnyValue:StringEquals", TWO, None, NO),
    ("ForAnyValue:StringEquals", TWO, (), NO),
    ("ForAnyValue:StringEquals", "", "", NO),
    ("ForAnyValue:StringEqualsIfExists", TWO, None, MATCH),
    ("ForAnyValue:StringEqualsIfExists", TWO, ("ID",), NO),
    ("ForAnyValue:StringEqualsIgnoreCase", TWO, ("ID", "message"), MATCH),
    ("ForAnyValue:StringNotEqualsIgnoreCase", TWO, ("message",), NO),
    ("ForAnyValue:StringLike", ["key1*"], ("key2", "key12"), MATCH),
    ("ForAnyValue:StringLike", ["key1*"], ("key2", "key3"), NO),
    ("ForAnyValue:StringLike", ["*"], None, NO),
    ("ForAnyValue:StringNotEquals", TWO, ("Message", "ID"), MATCH),
    ("ForAnyValue:StringNotEquals", TWO, ("Message", "PostDateTime"), NO),
    ("ForAnyValue:StringNotEquals", TWO, None, NO),
    ("ForAnyValue:StringNotEqualsIfExists", TWO, None, MATCH),
    ("ForAnyValue:StringNotLike", ["key1*"], ("key11", "key2"), MATCH),
    ("ForAnyValue:StringNotLike", ["key1*"], ("key11",), NO),
    ("ForAnyValue:NumericEquals", "1", ("2", "1"), MATCH),
    ("ForAnyValue:NumericEquals", "1", ("2", "3"), NO),
    ("ForAnyValue:DateGreaterThan", "2026", ("2025", "2027"), MATCH),
    ("ForAnyValue:Bool", "true", ("false", "true"), MATCH),
    ("ForAnyValue:Bool", "true", ("false",), NO),
    ("ForAnyValue:IpAddress", "10.0.0.0/8", ("11.0.0.1", "10.0.0.1"), MATCH),
    ("ForAnyValue:NotIpAddress", "10.0.0.0/8", ("10.0.0.2", "10.0.0.1"), NO),
    ("ForAnyValue:ArnLike", "arn:aws:iam::*:role/a*", ("arn:aws:iam::1:role/ab", "x"), MATCH),
    # Without a qualifier: one of the request's values has to match, none may match a negated one.
    ("StringEquals", "Message", ("ID", "Message"), MATCH),
    ("StringEquals", "Message", ("ID", "Name"), NO),
    ("StringEquals", "Message", (), NO),
    ("StringNotEquals", "Message", ("ID", "Message"), NO),
    ("StringNotEquals", "Message", ("ID", "Name"), MATCH),
    ("StringNotEquals", "Message", (), MATCH),
    ("StringLikeIfExists", "M*", (), MATCH),
]

DEPARTMENT = {"aws:PrincipalTag/department": ["finance", "hr", "legal"]}
ROLE = {"aws:PrincipalTag/role": ["audit", "security"]}
ANA, MARY, NIKKI = (f"arn:aws:iam::222222222222:user/{n}" for n in ("Ana", "Mary", "Nikki"))
LIKE = {"StringEquals": {**DEPARTMENT, **ROLE}, "ArnLike": {"aws:PrincipalArn": [ANA, MARY]}}
NOT_LIKE = {"StringEquals": {**DEPARTMENT, **ROLE}, "ArnNotLike": {"aws:PrincipalArn": [ANA, MARY]}}


def block(
    page: str, name: str, conditions: dict[str, Any], keys: dict[str, Any], holds: bool
) -> list[Case]:
    lower = {key.lower(): value for key, value in keys.items()}
    allow, deny = statement(Condition=conditions), statement("Deny", Condition=conditions)
    return [
        Case(
            page, f"{name}: Allow", "allowed" if holds else NOBODY,
            {"identity": document(allow)}, keys=lower,
        ),
        Case(
            page, f"{name}: Deny", EXPLICIT["identity"] if holds else "allowed",
            {"identity": document(statement(), deny)}, keys=lower,
        ),
    ]  # fmt: skip


def tags(department: str | None, role: str | None, arn: str) -> dict[str, str]:
    made = {"aws:PrincipalTag/department": department, "aws:PrincipalTag/role": role}
    return {"aws:PrincipalArn": arn, **{k: v for k, v in made.items() if v is not None}}


# The tables of the page, row by row.
BLOCKS = [
    *block(LOGIC, "all keys match", LIKE, tags("legal", "audit", MARY), MATCH),
    *block(LOGIC, "the last operator doesn't", LIKE, tags("hr", "audit", NIKKI), NO),
    *block(LOGIC, "the second key doesn't", LIKE, tags("hr", "payroll", MARY), NO),
    *block(LOGIC, "the second key is missing", LIKE, tags("hr", None, MARY), NO),
    *block(LOGIC, "both tags are missing", LIKE, tags(None, None, MARY), NO),
    *block(LOGIC, "negated: none of the values", NOT_LIKE, tags("legal", "audit", NIKKI), MATCH),
    *block(LOGIC, "negated: one of the values", NOT_LIKE, tags("hr", "audit", MARY), NO),
    *block(LOGIC, "negated: another key doesn't", NOT_LIKE, tags("hr", "payroll", NIKKI), NO),
    *block(LOGIC, "negated: another is missing", NOT_LIKE, tags("hr", None, NIKKI), NO),
    *block(LOGIC, "negated: both are missing", NOT_LIKE, tags(None, None, NIKKI), NO),
    *block(KEYS, "key names ignore case", {"Bool": {"AWS:SECURETRANSPORT": "true"}},
           {"aws:SecureTransport": "true"}, MATCH),
    *block(KEYS, "key names ignore case, not values", {"StringEquals": {"AWS:userNAME": "A"}},
           {"aws:username": "a"}, NO),
    *block(KEYS, "no conditions", {}, {}, MATCH),
    *block(KEYS, "no keys", {"StringEquals": {}}, {}, MATCH),
    *block(SETS, "ForAllValues guarded by Null, key missing",
           {"ForAllValues:StringEquals": {"aws:TagKeys": "a"}, "Null": {"aws:TagKeys": "false"}},
           {}, NO),
    *block(SETS, "ForAllValues guarded by Null, key there",
           {"ForAllValues:StringEquals": {"aws:TagKeys": "a"}, "Null": {"aws:TagKeys": "false"}},
           {"aws:TagKeys": ("a",)}, MATCH),
]  # fmt: skip

# Never allow: what can't be evaluated. A Deny with it denies ("If the AWS enforcement code
# encounters an error at any point during the evaluation, then it generates an exception and
# closes").
UNKNOWN: list[tuple[str, Any, Any]] = [
    ("StringSounds", "a", "a"),
    ("stringequals", "a", "a"),
    ("StringEqualsIfexists", "a", "a"),
    ("ForAllValues:StringSounds", "a", "a"),
    ("ForAllValues:StringSounds", "a", None),
    ("ForSomeValues:StringEquals", "a", "a"),
    ("ForAllValues:ForAnyValue:StringEquals", "a", "a"),
    ("ForAllValues:Null", "true", None),
    ("NullIfExists", "true", None),
    ("StringNotSounds", "a", None),
    (":StringEquals", "a", "a"),
    ("", "a", "a"),
    ("NumericEquals", "ten", "10"),
    ("NumericEquals", "10", "ten"),
    ("NumericEquals", "1e1", "10"),
    ("NumericEquals", "10.", "10"),
    ("NumericEquals", ".5", "0.5"),
    ("NumericEquals", "", "0"),
    ("NumericEquals", "١", "1"),
    ("NumericEquals", "0x10", "16"),
    ("NumericEquals", "NaN", "NaN"),
    ("NumericNotEquals", "ten", "10"),
    ("NumericNotEquals", "10", "ten"),
    ("NumericNotEquals", ["10", "ten"], "11"),
    ("NumericEquals", ["ten", "10"], "11"),
    ("NumericLessThan", "ten", "10"),
    ("NumericLessThan", "10", "${aws:Key}"),
    ("ForAllValues:NumericEquals", "10", ("10", "ten")),
    ("ForAllValues:NumericEquals", "10", ("ten", "10")),
    ("ForAnyValue:NumericEquals", "10", ("11", "ten")),
    ("DateLessThan", "tomorrow", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2026-13-01", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-02-30", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "0000-01-01", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-11-27T24:00:00Z", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-11-27T12:60:00Z", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-11-27T12:00:60Z", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-11-27T12:00:00", "2026-11-27T12:00:00Z"),
    ("DateLessThan", "2027-11-27 12:00:00Z", "2026-11-27T12:00:00Z"),
    ("DateGreaterThan", "2025-11-27", "now"),
    ("DateNotEquals", "2025-11-27", "now"),
    ("Bool", "yes", "true"),
    ("Bool", "true", "yes"),
    ("Bool", "1", "1"),
    ("BinaryEquals", "QUJ", "QUJD"),
    ("BinaryEquals", "QUJD", "Q!JD"),
    ("BinaryEquals", "é", "é"),
    ("IpAddress", "203.0.113.0/33", "203.0.113.1"),
    ("IpAddress", "203.0.113", "203.0.113.1"),
    ("IpAddress", "*", "203.0.113.1"),
    ("IpAddress", "203.0.113.0/24", "sagemaker.amazonaws.com"),
    ("NotIpAddress", "203.0.113.0/24", "sagemaker.amazonaws.com"),
    ("NotIpAddress", "nowhere", "203.0.113.1"),
    ("Null", "maybe", None),
    ("Null", "maybe", "x"),
]


def unknown(operator: str, wanted: Any, actual: Any) -> list[Case]:
    keys = {} if actual is None else {"aws:key": actual}
    made = {operator: {"aws:Key": wanted}}
    name = f"{operator} {wanted!r}, request {actual!r}"
    allow, deny = statement(Condition=made), statement("Deny", Condition=made)
    false = {**made, "StringEquals": {"aws:none": "x"}}
    held = statement("Deny", Condition=false)
    return [
        Case(GRAMMAR, f"{name}: no Allow", NOBODY, {"identity": document(allow)}, keys=keys),
        Case(
            GRAMMAR, f"{name}: a Deny", EXPLICIT["identity"],
            {"identity": document(statement(), deny)}, keys=keys,
        ),
        Case(
            GRAMMAR, f"{name}: no Deny where another condition is false", "allowed",
            {"identity": document(statement(), held)}, keys=keys,
        ),
    ]  # fmt: skip


# One value that can't be read, another that matches: the positive operator holds.
MIXED: list[Row] = [
    ("NumericEquals", ["ten", "10"], "10", MATCH),
    ("NumericNotEquals", ["ten", "10"], "10", NO),
    ("ForAnyValue:NumericEquals", "10", ("ten", "10"), MATCH),
    ("ForAllValues:NumericEquals", "10", ("ten", "11"), NO),
    ("IpAddress", ["nowhere", "10.0.0.0/8"], "10.1.1.1", MATCH),
    ("Null", ["maybe", "true"], None, MATCH),
]

CASES = [
    *condition(SETS, SET, "aws:TagKeys"),
    *BLOCKS,
    *(case for row in UNKNOWN for case in unknown(*row)),
    *condition(GRAMMAR, MIXED),
]
