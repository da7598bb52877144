"""Policy cases by page of AWS's documentation: `ALL` are all of them."""

from policy_cases import (
    conditions_sets,
    conditions_text,
    conditions_values,
    direct,
    elements,
    flow,
    variables,
    whom,
)
from policy_cases.case import Case
from policy_cases.direct import Check

ALL: list[Case | Check] = [
    *elements.CASES,
    *conditions_text.CASES,
    *conditions_values.CASES,
    *conditions_sets.CASES,
    *variables.CASES,
    *whom.CASES,
    *flow.CASES,
    *direct.CASES,
]
