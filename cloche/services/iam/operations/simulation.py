"""What policies say, asked without doing it; and which condition keys they ask for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloche.core import executors
from cloche.core.authorization import (
    Context,
    PolicyKind,
    Question,
    Statement,
    Values,
    principal_keys,
)
from cloche.core.errors import AwsError
from cloche.core.identity import Principal
from cloche.operation import Call, operation
from cloche.permissions import Permission, arns_at
from cloche.records.store import Resource
from cloche.services.iam import policies, policy_grammar
from cloche.services.iam.attached import PolicyText
from cloche.services.iam.context_keys import context_keys
from cloche.services.iam.entities import no_such
from cloche.services.iam.evaluation import (
    Applying,
    Statements,
    compiled,
    decide,
    evaluate,
    together,
)
from cloche.services.iam.identity import Identity, Role
from cloche.services.iam.paging import PAGE, Numbered, paged
from cloche.services.iam.statement_places import places

ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+")
SIMULATED = "simulated"  # the session that a simulated request of a role is said to come from
KINDS = ("role", "user", "group")
POLICY_TYPE = "IAM Policy"  # of every matched statement, whatever the enumeration says
# Characters of policies that are gone through for one page: of large ones a page has fewer results.
PAGE_COST = 4_000_000
LISTS = "List"  # what the types of context keys with several values end in


@operation(
    permissions=[Permission("iam:SimulatePrincipalPolicy", arns_at("PolicySourceArn"))],
    on=executors.SIMULATIONS,
)
def simulate_principal_policy(
    call: Call[Identity],
    *,
    PolicySourceArn: str,
    ActionNames: Sequence[str],
    ResourceArns: Sequence[str] = ("*",),
    ContextEntries: Sequence[dict[str, Any]] = (),
    PolicyInputList: Sequence[str] = (),
    PermissionsBoundaryPolicyInputList: Sequence[str] = (),
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return what all policies of a role, user or group say of each action on each resource.

    The policies that are given count besides; a boundary that is given counts instead of its own.
    """
    record = find_source(call, PolicySourceArn)
    attached = call.service.policies.attached(record)
    boundary = given(PermissionsBoundaryPolicyInputList, "PermissionsBoundaryPolicyInputList")
    if not boundary and attached.boundary is not None:
        boundary = [attached.boundary]
    who = principal_of(record)
    keys = {**principal_keys(who, lambda: call.now), **context_of(ContextEntries)}
    simulation = Simulation.of(
        who, Context(keys), (*attached.identity, *given(PolicyInputList)), boundary
    )
    return simulation.page(ActionNames, ResourceArns, Marker, MaxItems)


@operation(permissions=[Permission("iam:SimulateCustomPolicy")], on=executors.SIMULATIONS)
def simulate_custom_policy(
    call: Call[Identity],
    *,
    PolicyInputList: Sequence[str],
    ActionNames: Sequence[str],
    ResourceArns: Sequence[str] = ("*",),
    ContextEntries: Sequence[dict[str, Any]] = (),
    PermissionsBoundaryPolicyInputList: Sequence[str] = (),
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return what the policies that are given say of each action on each resource."""
    boundary = given(PermissionsBoundaryPolicyInputList, "PermissionsBoundaryPolicyInputList")
    context = Context(context_of(ContextEntries))
    # Whoever asks: of root, policies would have nothing to say.
    who = replace(call.principal, kind="user")
    simulation = Simulation.of(who, context, given(PolicyInputList), boundary)
    return simulation.page(ActionNames, ResourceArns, Marker, MaxItems)


@operation(
    permissions=[Permission("iam:GetContextKeysForCustomPolicy")],
    on=executors.SIMULATIONS,
)
def get_context_keys_for_custom_policy(
    call: Call[Identity], *, PolicyInputList: Sequence[str]
) -> dict[str, Any]:
    """Return the condition keys that policies name."""
    return {"ContextKeyNames": context_keys(each.policy for each in given(PolicyInputList))}


@operation(
    permissions=[Permission("iam:GetContextKeysForPrincipalPolicy", arns_at("PolicySourceArn"))],
    on=executors.SIMULATIONS,
)
def get_context_keys_for_principal_policy(
    call: Call[Identity], *, PolicySourceArn: str, PolicyInputList: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the condition keys that the policies of a role, user or group name."""
    attached = call.service.policies.attached(find_source(call, PolicySourceArn))
    texts = (*attached.identity, *given(PolicyInputList))
    return {"ContextKeyNames": context_keys(each.policy for each in texts)}


# ---------------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class Simulation:
    """Policies, and who is said to ask in which context."""

    who: Principal
    context: Context
    texts: dict[str, str]  # of the policies, by what decisions call them
    applying: Applying

    @classmethod
    def of(
        cls,
        who: Principal,
        context: Context,
        identity: Sequence[PolicyText],
        boundary: Sequence[PolicyText],
    ) -> "Simulation":
        """Return a simulation; without a boundary nothing bounds it."""
        return cls(
            who,
            context,
            {each.name: each.text for each in (*identity, *boundary)},
            Applying(
                statements("identity-based policy", identity),
                statements("permissions boundary", boundary) if boundary else None,
            ),
        )

    def page(
        self, actions: Sequence[str], resources: Sequence[str], marker: str | None, limit: int
    ) -> dict[str, Any]:
        """Return one page of the results: each action on each resource.

        It may be shorter than asked for, as IAM's pages may be.
        """
        for action in actions:
            if not ACTION.fullmatch(action):
                raise AwsError("InvalidInput", f"Invalid Action Name: {action}")
        count = len(resources)
        pairs = range(len(actions) * count)  # by number: there may be millions
        most = PAGE_COST // max(1, sum(map(len, self.texts.values())))
        page = paged(pairs, Numbered(pairs), marker, max(1, min(limit, most)))
        results = [
            self.result(actions[number // count], resources[number % count])
            for number in page.pop("items")
        ]
        return {"EvaluationResults": results, **page}

    def result(self, action: str, resource: str) -> dict[str, Any]:
        """Return one result as the API shows it."""
        asked = Question(self.who, action, resource, self.context)
        found = decide(self.applying, asked)
        shown: dict[str, Any] = {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": found.verdict,
            "MatchedStatements": [self.matched(each) for each in found.by],
            "MissingContextValues": list(found.missing),
        }
        if self.applying.boundary is not None:
            allows = evaluate(self.applying.boundary, asked).allowed
            detail = {"AllowedByPermissionsBoundary": allows}
            shown["PermissionsBoundaryDecisionDetail"] = detail
        return shown

    def matched(self, statement: Statement) -> dict[str, Any]:
        """Return a statement that decided, and where it stands."""
        found = places(self.texts[statement.policy])[statement.place]
        name = policies.name_of(statement.policy)
        return {"SourcePolicyId": name, "SourcePolicyType": POLICY_TYPE, **found}


def statements(kind: PolicyKind, texts: Iterable[PolicyText]) -> Statements:
    """Return the statements of policies of one kind, ready to be asked."""
    return together(kind, [compiled(text.name, text.policy, kind) for text in texts])


def given(texts: Sequence[str], name: str = "PolicyInputList") -> list[PolicyText]:
    """Return the policies that a request brings, called by their places; InvalidInput: not one."""
    found = []
    for number, text in enumerate(texts, 1):
        try:
            policy = policy_grammar.check(text, policy_grammar.IDENTITY)
        except AwsError as error:
            raise AwsError("InvalidInput", error.message) from error
        found.append(PolicyText(f"{name}.{number}", text, policy))
    return found


def context_of(entries: Iterable[dict[str, Any]]) -> dict[str, Values]:
    """Return the condition keys that a request brings, in lower case, with their values."""
    found: dict[str, Values] = {}
    for entry in entries:
        name, kind = entry.get("ContextKeyName"), entry.get("ContextKeyType", "string")
        if name is None:
            raise AwsError("InvalidInput", "Invalid Context Entry: ContextKeyName is missing")
        values: list[str] = entry.get("ContextKeyValues") or []
        if kind.endswith(LISTS):
            found[name.lower()] = tuple(values)
        elif len(values) > 1:
            message = f"Invalid Context Entry: {name} is a {kind} and has {len(values)} values"
            raise AwsError("InvalidInput", message)
        else:
            found[name.lower()] = values[0] if values else ""
    return found


def find_source(call: Call[Identity], arn: str) -> Resource:
    """Return the record of the caller's role, user or group with this ARN, or NoSuchEntity."""
    record = call.store.find(arn)
    if record is None or record.account != call.account or record.kind not in KINDS:
        kind = arn.split(":", 5)[-1].partition("/")[0]
        kind = kind if kind in KINDS else "role"
        raise no_such(f"The {kind} with name {arn.rsplit('/', 1)[-1]} cannot be found.")
    return record


def principal_of(record: Resource) -> Principal:
    """Return who is said to ask: a session of a role, a user, or somebody of a group."""
    if record.kind == "role":
        return Role.of(record).session(SIMULATED)
    user_id = str(record.document.get("UserId", ""))
    return Principal(kind="user", account=record.account, arn=record.arn, user_id=user_id)
