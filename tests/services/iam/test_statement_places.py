"""Where statements stand, as IAM counts it.

The positions of the first two are what AWS's simulator answered.
"""

import json

import pytest

from cloche.services.iam import policies
from cloche.services.iam.statement_places import places, spans

ADMINISTRATOR = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    },
    indent=2,
)
ONE_LINE = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow"},{"Effect":"Deny"}]}'


def test_positions_are_those_of_aws() -> None:
    assert places(ADMINISTRATOR) == [
        {"StartPosition": {"Line": 3, "Column": 17}, "EndPosition": {"Line": 8, "Column": 6}}
    ]
    first, second = places(ONE_LINE)
    assert first["StartPosition"] == {"Line": 1, "Column": 38}
    assert (first["EndPosition"], second["StartPosition"]) == (
        {"Line": 1, "Column": 56},
        {"Line": 1, "Column": 57},
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"Statement": {"Effect": "Deny"}}', [' {"Effect": "Deny"}']),
        ('{"Id": "a", "Statement" : [ {"a": "]"} , {} ], "Version": ""}', [' {"a": "]"}', " {}"]),
        ('{"Statement": []}', []),
        ("{}", []),
    ],
)
def test_statements_are_found_in_any_layout(text: str, found: list[str]) -> None:
    assert [text[begin:end] for begin, end in spans(text)] == found


def test_every_statement_of_every_policy_of_aws_is_found() -> None:
    for arn in policies.MANAGED:
        text = policies.text(arn)
        found = [json.loads(text[begin:end]) for begin, end in spans(text)]
        assert found == policies.document(arn)["Statement"], arn
