"""What the evaluator offers besides `decide`: one policy alone, patterns, names of operators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloche.core.authorization import Context, Decision, Question
from cloche.core.identity import Principal
from policy_cases.case import ALICE, GUIDE, SERVICE, document, statement

RESOURCE = f"{GUIDE}reference_policies_elements_resource.html"
VARIABLES = f"{GUIDE}reference_policies_variables.html"
OPERATORS = f"{GUIDE}reference_policies_elements_condition_operators.html"
SIMULATOR = f"{GUIDE}access_policies_testing-policies.html"
Answer = Callable[[Any], object]


@dataclass(frozen=True)
class Check:
    """A question to the evaluator, and the answer."""

    page: str
    name: str
    expected: object
    ask: Answer

    def __str__(self) -> str:
        return f"{self.page.removeprefix(GUIDE)}: {self.name}"

    def wrong(self, evaluator: Any) -> str | None:
        """Return what is wrong with an evaluator's answer; None: nothing."""
        try:
            found = self.ask(evaluator)
        except Exception as error:  # a broken evaluator may raise anything
            return f"raises {error!r}"
        return None if found == self.expected else f"{found!r} instead of {self.expected!r}"


LIKE: list[tuple[str, str, dict[str, Any] | None, bool]] = [
    ("a*c", "abc", None, True),
    ("a*c", "abd", None, False),
    ("a?c", "abc", None, True),
    ("a?c", "ac", None, False),
    ("${aws:username}*", "alice-1", {"aws:username": "alice"}, True),
    ("${aws:username}*", "bob", {"aws:username": "alice"}, False),
    ("${aws:username}*", "", {}, False),
    ("${aws:username}*", "", None, False),
    ("${aws:username, 'x'}*", "xyz", None, True),
]
NAMES = [
    ("StringEquals", True),
    ("ForAnyValue:StringLikeIfExists", True),
    ("NotIpAddress", True),
    ("Null", True),
    ("NullIfExists", False),
    ("ForAllValues:Null", False),
    ("StringSounds", False),
    ("Some:StringEquals", False),
]


def alone(name: str, expected: str, *statements: Any, who: Principal = ALICE, **more: Any) -> Check:
    """One policy alone: its verdict, the Sids of what decided, and of what kind it is."""
    kind = more.pop("kind", "identity-based policy")
    question = Question(who, "s3:GetObject", "arn:aws:s3:::b/k", Context(more))

    def ask(evaluator: Any) -> str:
        policy = evaluator.compiled("p", document(*statements), kind)
        found: Decision = evaluator.evaluate(policy, question)
        by = [statement.sid for statement in found.by]
        return f"{found.verdict} {by} {list(found.missing)} {found.lacking}"

    return Check(SIMULATOR, f"alone: {name}", expected, ask)


IDENTITY, RESOURCE_KIND = "identity-based policy", "resource-based policy"
WHERE = {"StringEquals": {"aws:Key": "x"}}
ALONE = [
    alone("nothing", f"implicitDeny [] [] {IDENTITY}"),
    alone("nothing of a resource's", f"implicitDeny [] [] {RESOURCE_KIND}", kind=RESOURCE_KIND),
    alone("an Allow", f"allowed ['A'] [] {IDENTITY}", statement(Sid="A")),
    alone("a Deny", f"explicitDeny ['D'] [] {IDENTITY}", statement("Deny", Sid="D")),
    alone("both", f"explicitDeny ['D'] [] {IDENTITY}", statement(Sid="A"),
          statement("Deny", Sid="D")),
    alone("a missing key", f"implicitDeny [] ['aws:Key'] {IDENTITY}", statement(Condition=WHERE)),
    alone("a missing key beside an Allow", f"allowed ['A'] ['aws:Key'] {IDENTITY}",
          statement(Condition=WHERE), statement(Sid="A")),
    alone("a missing key beside a Deny", f"explicitDeny ['D'] ['aws:Key'] {IDENTITY}",
          statement(Condition=WHERE), statement("Deny", Sid="D")),
    alone("a key", f"allowed ['A'] [] {IDENTITY}", statement(Sid="A", Condition=WHERE),
          **{"aws:key": "x"}),
    alone("its account named", f"allowed ['A'] [] {IDENTITY}",
          statement(Sid="A", Principal={"AWS": ALICE.account}), kind=RESOURCE_KIND),
    alone("a service", f"allowed ['A'] [] {IDENTITY}",
          statement(Sid="A", Principal={"Service": SERVICE.arn}), kind=RESOURCE_KIND,
          who=SERVICE),
]  # fmt: skip


class Counting(dict[str, str]):
    """Condition keys; counts how often one is looked up."""

    times = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.times += 1
        return super().get(key, default)


def times_looked_up(evaluator: Any) -> int:
    """One key, in several conditions, statements and kinds of policies."""
    keys: Any = Counting({"aws:key": "x"})
    policies = {
        kind: evaluator.compiled("p", document(*[statement(Condition=WHERE)] * 5), kind)
        for kind in (IDENTITY, "permissions boundary", "session policy")
    }
    applying = evaluator.Applying(*policies.values())
    assert evaluator.decide(applying, Question(ALICE, "s3:X", "*", keys)).allowed
    return int(keys.times)


CASES = [
    *(
        Check(VARIABLES, f"{pattern} {text} {keys}", fits,
              lambda e, p=pattern, t=text, k=keys: e.like(p, t, k))
        for pattern, text, keys, fits in LIKE
    ),
    *(
        Check(OPERATORS, f"operator {name}", there, lambda e, n=name: e.known_operator(n))
        for name, there in NAMES
    ),
    *ALONE,
    Check(OPERATORS, "a key is looked up once", 1, times_looked_up),
]  # fmt: skip
