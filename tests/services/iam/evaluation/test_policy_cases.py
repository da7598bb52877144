"""What AWS's documentation says of policies, case by case (`policy_cases`)."""

import policy_cases
import pytest
from policy_cases import Case, Check

from cloche.services.iam import evaluation


@pytest.mark.parametrize("case", policy_cases.ALL, ids=str)
def test_a_documented_case(case: Case | Check) -> None:
    assert case.wrong(evaluation) is None
