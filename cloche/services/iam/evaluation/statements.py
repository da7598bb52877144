"""Statements of policies, compiled once, found by the action that a question is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

from cloche.core.authorization import Context, Decision, PolicyKind, Question, Statement
from cloche.core.identity import Principal
from cloche.services.iam.evaluation.conditions import Condition, conditions, every
from cloche.services.iam.evaluation.documents import VARIABLES_SINCE, listed
from cloche.services.iam.evaluation.patterns import (
    Fits,
    Keys,
    ResourcePatterns,
    matcher,
    without_variables,
)
from cloche.services.iam.evaluation.principals import Grant, Principals, principals

Policy = Mapping[str, Any]
OF_RESOURCES: tuple[PolicyKind, ...] = ("resource-based policy", "role trust policy")
# Actions whose statements are kept (what users may simulate has no end); many have the same.
REMEMBERED, PLANS = 1000, 64
NAMES, NAME_LENGTH = 64, 256  # resources that a plan remembers, and how long their names may be


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement, taken apart once.

    principals: whom it speaks of; None: of whoever the policy is attached to.
    resources: None where the policy is the resource's own, and speaks of nothing else.
    """

    source: Statement
    allows: bool
    actions: tuple[str, ...]
    not_actions: bool
    matchers: tuple[Fits, ...]
    principals: Principals | None
    resources: ResourcePatterns | None
    not_resources: bool
    conditions: tuple[Condition, ...]

    def about(self, action: str) -> bool:
        """Tell whether it speaks of an action, in lower case."""
        return any(fits(action) for fits in self.matchers) != self.not_actions

    def names(self, resource: str, keys: Keys) -> bool:
        """Tell whether it speaks of a resource."""
        if self.resources is None:
            return self.source.kind in OF_RESOURCES
        named = self.resources.named(resource, keys)
        return named is not None and named != self.not_resources

    def grant(self, who: Principal) -> Grant:
        """Return how directly it speaks of who asks: NONE, not at all."""
        if self.principals is None:
            return Grant.NONE if self.source.kind in OF_RESOURCES else Grant.DIRECT
        if self.allows:
            return self.principals.grant(who)
        return Grant.DIRECT if self.principals.denied(who) else Grant.NONE

    def applies(self, asked: "Asked") -> bool:
        """Tell whether its conditions hold: an Allow's for certain, a Deny's perhaps."""
        found, keys = asked.found, asked.question.context
        answer = every([answer(found[name], keys) for name, answer in self.conditions])
        return answer is True or (answer is None and not self.allows)


class KeyValues(dict[str, tuple[str, ...]]):
    """A request's values for condition keys, by their names as they are written; () for none."""

    __slots__ = ("keys_of",)

    def __init__(self, context: Context) -> None:
        self.keys_of = context

    def __missing__(self, name: str) -> tuple[str, ...]:
        found = self.keys_of.get(name.lower(), ())
        self[name] = values = (found,) if isinstance(found, str) else found
        return values


class Asked:
    """A question, while it is answered."""

    __slots__ = ("found", "question")

    def __init__(self, question: Question) -> None:
        self.question, self.found = question, KeyValues(question.context)

    def missing(self) -> tuple[str, ...]:
        """Return the keys that statements name and the context lacks."""
        return tuple(name for name, values in self.found.items() if not values)


class Said(NamedTuple):
    """What policies of one kind say. grant: how directly the Allow statements name who asks."""

    denies: tuple[Statement, ...]
    allows: tuple[Statement, ...]
    grant: Grant


class Plan:
    """The statements on an action, found by the resource: by their places in the policies."""

    __slots__ = ("_exact", "_fixed", "_others", "_prefixed", "_statements", "_varying")

    def __init__(self, statements: Sequence[CompiledStatement], places: Iterable[int]) -> None:
        self._statements = statements
        self._exact: dict[str, list[int]] = {}
        self._prefixed: list[tuple[str, int]] = []
        self._others: list[int] = []
        self._varying: list[int] = []  # with variables: asked about each request
        self._fixed = lru_cache(NAMES)(self._named)
        for place in places:
            statement = statements[place]
            patterns = statement.resources
            if patterns is not None and patterns.filled_later:
                self._varying.append(place)
                continue
            if patterns is None or statement.not_resources or not patterns.simple:
                self._others.append(place)
                continue
            for name in patterns.exact:
                self._exact.setdefault(name, []).append(place)
            self._prefixed += [(prefix, place) for prefix in patterns.prefixes]

    def about(self, asked: Asked) -> list[CompiledStatement]:
        """Return those on the question's resource, in the order of the policies."""
        name, keys = asked.question.resource, asked.question.context
        fixed = self._fixed(name) if len(name) <= NAME_LENGTH else self._named(name)
        varying = [place for place in self._varying if self._statements[place].names(name, keys)]
        return [self._statements[place] for place in sorted({*fixed, *varying})]

    def _named(self, name: str) -> tuple[int, ...]:
        """Return the places of those without variables on a resource."""
        return (
            *self._exact.get(name, ()),
            *[place for prefix, place in self._prefixed if name.startswith(prefix)],
            *[place for place in self._others if self._statements[place].names(name, {})],
        )


def places(statements: Sequence[CompiledStatement], action: str) -> tuple[int, ...]:
    """Return which statements speak of an action."""
    lower = action.lower()
    return tuple(n for n, statement in enumerate(statements) if statement.about(lower))


class Statements:
    """Statements of policies of one kind, in their order."""

    __slots__ = ("_plan", "all", "kind")

    def __init__(self, kind: PolicyKind, statements: Iterable[CompiledStatement]) -> None:
        self.kind, self.all = kind, tuple(statements)
        of_places = lru_cache(PLANS)(partial(Plan, self.all))
        find = partial(places, self.all)
        self._plan = lru_cache(REMEMBERED)(lambda action: of_places(find(action)))

    def said(self, asked: Asked) -> Said:
        """Return which statements deny and which allow."""
        denies: list[Statement] = []
        allows: list[Statement] = []
        best = Grant.NONE
        for statement in self._plan(asked.question.action).about(asked):
            grant = statement.grant(asked.question.principal)
            if grant is Grant.NONE or not statement.applies(asked):
                continue
            if statement.allows:
                allows.append(statement.source)
                best = max(best, grant)
            else:
                denies.append(statement.source)
        return Said(tuple(denies), tuple(allows), best)


def compiled(name: str, policy: Policy, kind: PolicyKind = "identity-based policy") -> Statements:
    """Return a policy's statements, ready to be asked; its grammar was checked."""
    variables = policy.get("Version") == VARIABLES_SINCE
    found = enumerate(listed(policy["Statement"]))
    return Statements(kind, [one(name, kind, n, statement, variables) for n, statement in found])


def one(
    name: str, kind: PolicyKind, place: int, statement: Mapping[str, Any], variables: bool
) -> CompiledStatement:
    """Return one statement, taken apart."""
    not_actions, not_resources = "NotAction" in statement, "NotResource" in statement
    actions = listed(statement["NotAction" if not_actions else "Action"])
    resources = statement.get("NotResource" if not_resources else "Resource")
    lower = tuple(action.lower() for action in actions)
    return CompiledStatement(
        source=Statement(name, kind, place, statement.get("Sid")),
        allows=statement["Effect"] == "Allow",
        actions=lower,
        not_actions=not_actions,
        matchers=tuple(matcher(without_variables(each)) for each in lower),
        principals=whom(statement),
        resources=None
        if resources is None
        else ResourcePatterns(listed(resources), variables=variables),
        not_resources=not_resources,
        conditions=tuple(conditions(statement.get("Condition", {}), variables)),
    )


def whom(statement: Mapping[str, Any]) -> Principals | None:
    """Return whom a statement speaks of, where it says so."""
    for element in ("Principal", "NotPrincipal"):
        if element in statement:
            return principals(statement[element], negated=element == "NotPrincipal")
    return None


def together(kind: PolicyKind, policies: Iterable[Statements]) -> Statements:
    """Return the statements of several policies of one kind."""
    return Statements(kind, [statement for policy in policies for statement in policy.all])


def evaluate(statements: Statements, question: Question) -> Decision:
    """Return what these statements alone say: a Deny wins, and without an Allow it is a no."""
    asked = Asked(question)
    said = statements.said(asked)
    missing = asked.missing()
    if said.denies:
        return Decision("explicitDeny", said.denies, missing)
    if said.allows:
        return Decision("allowed", said.allows, missing)
    return Decision("implicitDeny", (), missing, statements.kind)
