"""The smallest policy that covers what was done: actions and resources, as they were asked for.

A name is kept as it is until several of its form were used: then what carries a time, or a number,
becomes `*`; of several objects of a folder the folder stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloche.events import PASS_ROLE, PASSED_TO

VERSION = "2012-10-17"
# What tells the names of one form apart: times, long numbers, random hexadecimal digits.
VARYING = re.compile(
    r"\d{4}-\d{2}-\d{2}([-T_]\d{2}([-:]?\d{2}){0,2}([-.]\d{1,6})?Z?)?"
    r"|\d{8}[-T_]?\d{6}"
    r"|\d{6,20}"
    r"|(?<![0-9a-f])(?=[a-f]*[0-9])[0-9a-f]{8,64}(?![0-9a-f])"
    r"|(?<=-)\d{1,5}(?=$|-)"
)
FOLDERS = 5  # folders of one folder that are named one by one
WILD = re.compile(r"\*{2,}")


@dataclass(slots=True)
class Used:
    """What was done: resources by action; services that roles were passed to, by the role."""

    resources: dict[str, set[str]] = field(default_factory=dict)
    passed_to: dict[str, set[str]] = field(default_factory=dict)

    def add(self, action: str, resource: str, context: Mapping[str, Any]) -> None:
        """Add one thing that was done."""
        self.resources.setdefault(action, set()).add(resource)
        if action == PASS_ROLE and isinstance(context.get(PASSED_TO), str):
            self.passed_to.setdefault(resource, set()).add(context[PASSED_TO])


def policy(used: Used) -> dict[str, Any]:
    """Return the policy that allows what was done. Actions that share resources share a statement.

    Without a statement (nothing was done) it is none that IAM takes.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for action in sorted(used.resources):
        if action == PASS_ROLE:
            continue
        service = action.partition(":")[0]
        resources = tuple(general(used.resources[action]))
        groups.setdefault((service, resources), []).append(action)
    statements = [
        statement(actions, resources)
        for (_, resources), actions in sorted(groups.items(), key=lambda group: group[1])
    ]
    return {"Version": VERSION, "Statement": [*statements, *passing(used)]}


def statement(
    actions: Sequence[str], resources: Sequence[str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a statement that allows actions on resources; one of either is no list."""
    made: dict[str, Any] = {"Effect": "Allow", "Action": one(actions), "Resource": one(resources)}
    return {**made, "Condition": condition} if condition else made


def passing(used: Used) -> list[dict[str, Any]]:
    """Return the statements for roles that were passed, for each set of services."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for role in sorted(used.resources.get(PASS_ROLE, ())):
        groups.setdefault(tuple(sorted(used.passed_to.get(role, ()))), []).append(role)
    return [
        statement(
            [PASS_ROLE],
            roles,
            {"StringEquals": {"iam:PassedToService": one(services)}} if services else None,
        )
        for services, roles in sorted(groups.items())
    ]


def one(values: Sequence[str]) -> str | list[str]:
    """Return the value where there is one, and a list of several."""
    return values[0] if len(values) == 1 else list(values)


def general(resources: Iterable[str]) -> list[str]:
    """Return ARNs that cover these, as narrow as several of one form allow."""
    forms: dict[str, set[str]] = {}
    for resource in resources:
        forms.setdefault(form(resource), set()).add(resource)
    merged = {f if len(same) > 1 else next(iter(same)) for f, same in forms.items()}
    if "*" in merged:
        return ["*"]
    return sorted(folded(merged))


def form(resource: str) -> str:
    """Return an ARN with `*` for what tells names of one form apart."""
    if resource == "*":
        return resource
    head, _, tail = resource.rpartition(":")
    if is_object(resource):
        return f"{head}:{tail.rpartition('/')[0]}/*"
    return f"{head}:{WILD.sub('*', VARYING.sub('*', tail))}"


def is_object(arn: str) -> bool:
    """Tell whether an ARN is of an object of S3."""
    return arn.startswith("arn:aws:s3:::") and "/" in arn


def folded(arns: set[str]) -> set[str]:
    """Return ARNs of objects with one folder for many in it, and none that another covers."""
    while True:
        parents: dict[str, set[str]] = {}
        for arn in arns:
            folder = arn.removesuffix("/*")
            if arn.endswith("/*") and is_object(folder):
                parents.setdefault(f"{folder.rpartition('/')[0]}/*", set()).add(arn)
        many = {parent: inside for parent, inside in parents.items() if len(inside) > FOLDERS}
        if not many:
            break
        for parent, inside in many.items():
            arns = (arns - inside) | {parent}
    wild = [arn[:-1] for arn in arns if arn.endswith("/*")]
    return {arn for arn in arns if not any(arn != f"{w}*" and arn.startswith(w) for w in wild)}
