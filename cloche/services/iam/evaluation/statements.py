"""Statements of policies, compiled once, found by the action that a question is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloche.core.authorization import Decision, PolicyKind, Question, Statement
from cloche.core.identity import Principal
from cloche.services.iam.evaluation.conditions import Condition, conditions, every
from cloche.services.iam.evaluation.documents import VARIABLES_SINCE, listed
from cloche.services.iam.evaluation.patterns import Fits, Resources, filled, matcher, parse
from cloche.services.iam.evaluation.principals import Grant, Principals, principals

Policy = Mapping[str, Any]
OF_RESOURCES: tuple[PolicyKind, ...] = ("resource-based policy", "role trust policy")
# Actions whose statements are kept: what users may ask for (simulations) has no end.
REMEMBERED, PLANS = 1000, 64


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
    resources: Resources | None
    not_resources: bool
    conditions: tuple[Condition, ...]

    def about(self, action: str) -> bool:
        """Tell whether it speaks of an action, in lower case."""
        return any(fits(action) for fits in self.matchers) != self.not_actions

    def names(self, asked: "Asked") -> bool:
        """Tell whether it speaks of the question's resource."""
        if self.resources is None:
            return self.source.kind in OF_RESOURCES
        named = self.resources.named(asked.question.resource, asked.question.context)
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
        answer = every([asked.answer(condition) for condition in self.conditions])
        return answer is True or (answer is None and not self.allows)


class Asked:
    """A question, while it is answered.

    missing: the keys, as they are written, that statements name and the context lacks.
    """

    __slots__ = ("found", "missing", "question")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.found: dict[str, tuple[str, ...]] = {}
        self.missing: dict[str, None] = {}

    def answer(self, condition: Condition) -> bool | None:
        """Tell whether a condition holds."""
        values = self.found.get(condition.key)
        if values is None:
            values = self.found[condition.key] = self._values(condition.key)
        if not values:
            self.missing[condition.name] = None
        return condition.answer(values, self.question.context)

    def _values(self, key: str) -> tuple[str, ...]:
        found = self.question.context.get(key)
        if found is None:
            return ()
        return (found,) if isinstance(found, str) else found


@dataclass(frozen=True, slots=True)
class Said:
    """What policies of one kind say. grant: how directly the Allow statements name who asks."""

    denies: tuple[Statement, ...]
    allows: tuple[Statement, ...]
    grant: Grant


class Plan:
    """The statements on an action, found by the resource: places in the order of the policies."""

    __slots__ = ("always", "exact", "others", "prefixed", "prefixes")

    def __init__(self, statements: Sequence[CompiledStatement], places: Iterable[int]) -> None:
        self.always: list[int] = []
        self.exact: dict[str, list[int]] = {}
        self.prefixed: list[tuple[tuple[str, ...], int]] = []
        self.others: list[int] = []
        for place in places:
            statement = statements[place]
            patterns = statement.resources
            if patterns is None or statement.not_resources or not patterns.simple:
                self.others.append(place)
            elif patterns.whatever:
                self.always.append(place)
            else:
                for name in patterns.exact:
                    self.exact.setdefault(name, []).append(place)
                if patterns.prefixes:
                    self.prefixed.append((patterns.prefixes, place))
        self.prefixes = tuple(prefix for many, _place in self.prefixed for prefix in many)

    def about(self, statements: Sequence[CompiledStatement], asked: Asked) -> list[int]:
        """Return the places of those on the question's resource."""
        name = asked.question.resource
        found = [*self.always, *self.exact.get(name, ())]
        if name.startswith(self.prefixes):
            found += [place for many, place in self.prefixed if name.startswith(many)]
        found += [place for place in self.others if statements[place].names(asked)]
        return sorted(set(found))


class Statements:
    """Statements of policies of one kind, in their order."""

    __slots__ = ("_everywhere", "_exact", "_plans", "_remembered", "_services", "all", "kind")

    def __init__(self, kind: PolicyKind, statements: Iterable[CompiledStatement]) -> None:
        self.kind, self.all = kind, tuple(statements)
        self._exact: dict[str, list[int]] = {}
        self._services: dict[str, list[int]] = {}
        self._everywhere: list[int] = []
        self._remembered: dict[str, Plan] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}
        for place, statement in enumerate(self.all):
            self._index(place, statement)

    def _index(self, place: int, statement: CompiledStatement) -> None:
        if statement.not_actions:
            self._everywhere.append(place)
            return
        for pattern in statement.actions:
            service, colon, _name = pattern.partition(":")
            if not wild(pattern):
                self._exact.setdefault(pattern, []).append(place)
            elif colon and not wild(service):
                self._services.setdefault(service, []).append(place)
            else:
                self._everywhere.append(place)

    def _plan(self, action: str) -> Plan:
        found = self._remembered.get(action)
        if found is None:
            places = self._places(action.lower())
            if len(self._remembered) >= REMEMBERED or len(self._plans) >= PLANS:
                self._remembered.clear()
                self._plans.clear()
            found = self._plans.get(places) or Plan(self.all, places)
            self._plans[places] = self._remembered[action] = found
        return found

    def _places(self, action: str) -> tuple[int, ...]:
        service = action.partition(":")[0]
        places = {*self._everywhere, *self._services.get(service, ()), *self._exact.get(action, ())}
        return tuple(n for n in sorted(places) if self.all[n].about(action))

    def said(self, asked: Asked) -> Said:
        """Return which statements deny and which allow."""
        denies: list[Statement] = []
        allows: list[Statement] = []
        best = Grant.NONE
        for place in self._plan(asked.question.action).about(self.all, asked):
            statement = self.all[place]
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
        matchers=tuple(matcher(filled(parse(each, variables=False), {}) or []) for each in lower),
        principals=whom(statement),
        resources=None if resources is None else Resources(listed(resources), variables=variables),
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
    missing = tuple(asked.missing)
    if said.denies:
        return Decision("explicitDeny", said.denies, missing)
    if said.allows:
        return Decision("allowed", said.allows, missing)
    return Decision("implicitDeny", (), missing, statements.kind)


def wild(pattern: str) -> bool:
    """Tell whether a pattern has wildcards."""
    return "*" in pattern or "?" in pattern
