"""What holds for any policies: seeded ones, of actions, resources, principals, conditions."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policy_cases.case import ALICE, ANONYMOUS, OTHER, ROOT, SERVICE, SESSION, document

from cloche.core.authorization import Context, PolicyKind, Question, Values
from cloche.services.iam.evaluation import Applying, Statements, compiled, decide, together
from cloche.testing.extent import Extent

WHO = (ALICE, SESSION, ROOT, SERVICE, ANONYMOUS)
ACTIONS = ("s3:GetObject", "s3:PutObject", "iam:GetRole")
NAMES = ("arn:aws:s3:::b/k", "arn:aws:s3:::b/alice", "arn:aws:s3:::b", "*")
PATTERNS = (*NAMES, "arn:aws:s3:::b/*", "arn:aws:s3:::?*", "arn:aws:s3:::b/${aws:username}")
PRINCIPALS: tuple[Any, ...] = (
    "*",
    {"AWS": ALICE.account},
    {"AWS": ALICE.arn},
    {"AWS": [SESSION.role_arn]},
    {"AWS": [SESSION.arn, SESSION.role_arn, ROOT.arn]},
    {"Service": SERVICE.arn},
)
OPERATORS = ("StringEquals", "StringNotEquals", "StringLike", "NumericLessThan", "IpAddress",
             "Bool", "ArnNotLike", "DateGreaterThan", "Null", "StringSounds")  # fmt: skip
SETS, ENDS = ("", "", "ForAllValues:", "ForAnyValue:"), ("", "", "IfExists")
VALUES = ("a", "alice", "10", "true", "10.0.0.1", "2026", "*", "${aws:username}", "${aws:none}")
KEYS = ("aws:username", "aws:a", "aws:b", "aws:none")
KINDS: dict[str, PolicyKind] = {
    "identity": "identity-based policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "resource": "resource-based policy",
}
Written = dict[str, list[dict[str, Any]]]  # statements by the kind of policy


@dataclass
class Drawn:
    """Policies and questions, drawn."""

    chance: random.Random

    def some(self, of: tuple[Any, ...]) -> list[Any]:
        return self.chance.sample(of, self.chance.randint(1, 2))

    def statement(self, kind: str, effect: str | None = None) -> dict[str, Any]:
        """A statement; only now and then one with Not…, which speaks of nearly all."""
        pick = self.chance.choice
        negated = pick(("", "", "", "Not"))
        made: dict[str, Any] = {
            "Effect": effect or pick(("Allow", "Allow", "Allow", "Deny")),
            pick(("Action", "Action", "NotAction")): self.some((*ACTIONS, "s3:*", "*")),
            pick(("Resource", "Resource", "NotResource")): self.some(PATTERNS),
        }
        if kind == "resource":
            made[f"{negated}Principal"] = pick(PRINCIPALS)
        if self.chance.random() < 0.5:
            made["Condition"] = self.condition()
        return made

    def condition(self) -> dict[str, Any]:
        pick = self.chance.choice
        operator = pick(SETS) + pick(OPERATORS) + pick(ENDS)
        return {operator: {pick(KEYS): self.some(VALUES)}}

    def policies(self) -> Written:
        """Of some kinds; there is always an identity's."""
        kinds = [kind for kind in KINDS if kind == "identity" or self.chance.random() < 0.5]
        return {
            kind: [self.statement(kind) for _ in range(self.chance.randint(1, 3))] for kind in kinds
        }

    def question(self) -> Question:
        keys: dict[str, Values] = {
            key: self.chance.choice((*VALUES, ("a", "alice"), ()))
            for key in KEYS[:-1]
            if self.chance.random() < 0.7
        }
        pick = self.chance.choice
        return Question(pick(WHO), pick(ACTIONS), pick(NAMES), Context(keys))


def allowed(written: Written, question: Question, owner: str | None) -> bool:
    made: dict[str, Statements] = {
        kind: compiled("p", document(*statements), KINDS[kind])
        for kind, statements in written.items()
    }
    identity = made.pop("identity")
    return decide(Applying(identity, resource_account=owner, **made), question).allowed


def drawn(extent: Extent) -> Iterator[tuple[Drawn, Written, Question, str | None, bool]]:
    """Yield policies, a question, whose the resource is, and whether it is allowed."""
    draw = Drawn(random.Random(extent.seed))
    seen = {True: 0, False: 0}
    for _ in range(extent.of(1500, 30_000)):
        written, question = draw.policies(), draw.question()
        owner = draw.chance.choice((None, OTHER))
        before = allowed(written, question, owner)
        seen[before] += 1
        yield draw, written, question, owner, before
    assert min(seen.values()) > sum(seen.values()) / 20  # there was something to lose, or to win


def test_adding_a_deny_never_allows_more(extent: Extent) -> None:
    less = 0
    for draw, written, question, owner, before in drawn(extent):
        kind = draw.chance.choice(list(written))
        more = {**written, kind: [*written[kind], draw.statement(kind, "Deny")]}
        after = allowed(more, question, owner)
        assert before or not after, (more, question)
        less += before and not after
    assert less  # control: Denies were added that did something


def test_removing_an_allow_never_allows_more(extent: Extent) -> None:
    less = 0
    for draw, written, question, owner, before in drawn(extent):
        allows = [
            (kind, n)
            for kind, statements in written.items()
            for n, statement in enumerate(statements)
            if statement["Effect"] == "Allow"
        ]
        if not allows:
            continue
        kind, n = draw.chance.choice(allows)
        fewer = {**written, kind: written[kind][:n] + written[kind][n + 1 :]}
        after = allowed(fewer, question, owner)
        assert before or not after, (fewer, question)
        less += before and not after
    assert less


def test_an_unknown_operator_or_key_never_allows(extent: Extent) -> None:
    """A key that there isn't, by operators that need it: negated ones hold without, as on AWS."""
    needing = ("StringEquals", "StringLike", "NumericLessThan", "IpAddress", "Bool", "ArnLike",
               "DateGreaterThan", "ForAnyValue:StringNotEquals")  # fmt: skip
    less = 0
    for draw, written, question, owner, before in drawn(extent):
        pick = draw.chance.choice
        unknown = pick(("StringSounds", "ForAllValues:Sounds", "SoundsIfExists", "Not", ""))
        wanted: dict[str, Any] = {pick((unknown, *needing)): {"aws:NoSuchKey": draw.some(VALUES)}}
        held = {
            kind: [
                s | {"Condition": s.get("Condition", {}) | wanted} if s["Effect"] == "Allow" else s
                for s in statements
            ]
            for kind, statements in written.items()
        }
        after = allowed(held, question, owner)
        # Root needs no Allow in its own account.
        assert not after or (question.principal is ROOT and owner is None), (held, question)
        less += before and not after
    assert less


def test_a_boundary_or_session_policy_never_allows_more(extent: Extent) -> None:
    less = 0
    for draw, written, question, owner, _before in drawn(extent):
        kind = draw.chance.choice(("boundary", "session"))
        without = {name: said for name, said in written.items() if name != kind}
        bounded = {**without, kind: [draw.statement(kind) for _ in range(2)]}
        free, after = allowed(without, question, owner), allowed(bounded, question, owner)
        assert free or not after, (bounded, question)
        less += free and not after
    assert less


def test_policies_together_say_what_one_with_all_statements_says(extent: Extent) -> None:
    for _draw, written, question, _owner, _before in drawn(extent):
        statements = written["identity"]
        kind = KINDS["identity"]
        one = Applying(compiled("p", document(*statements), kind))
        apart = [compiled("p", document(statement), kind) for statement in statements]
        found = decide(Applying(together(kind, apart)), question)
        assert found.verdict == decide(one, question).verdict
