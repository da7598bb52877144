"""Policy cases by page of AWS's documentation: `ALL` are all of them."""

from policy_cases import (
    conditions_sets,
    conditions_text,
    conditions_values,
    elements,
    flow,
    variables,
    whom,
)
from policy_cases.case import Case

ALL: list[Case] = [
    case
    for module in (
        elements,
        conditions_text,
        conditions_values,
        conditions_sets,
        variables,
        whom,
        flow,
    )
    for case in module.CASES
]
