"""What a question costs: of hostile policies and names, of many policies, of many actions."""

import re
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from policy_cases.case import ALICE, document, statement

from cloche.core.authorization import Context, Question
from cloche.services.iam.evaluation import Applying, Statements, compiled, decide, together

KB = 1000
ARN = "arn:aws:s3:::"
CPU_S = 0.5  # they take 1 to 30 ms; ten times more when the machine is shared


def cpu_s(work: Callable[[], object]) -> float:
    """How much CPU it takes, the least of three times."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def on(*resources: str) -> dict[str, Any]:
    return statement(Resource=list(resources))


def where(operator: str, *wanted: str) -> dict[str, Any]:
    return statement(Condition={operator: {"aws:key": list(wanted)}})


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (on(ARN + "*a" * 5 * KB + "b"), "a" * 10 * KB),
        (on(ARN + "*?a" * 3 * KB + "b"), "a" * 10 * KB),
        (on(ARN + "?a*" * 3 * KB + "b"), "ab" * 5 * KB),
        (on(ARN + "a?" * 5 * KB), "a" * 10 * KB),
        (on(ARN + "*" + "a" * 2 * KB + "b" + "a" * 2 * KB + "*"), "a" * 10 * KB),
        (on("arn:a*" + "a*b" * 3 * KB + ":" + "*" * 900), "a" * 10 * KB),
        (on(ARN + "?".join(chr(0x4E00 + n) for n in range(5 * KB))), "a" * 10 * KB),
        (on(ARN + "${" * 5 * KB), "a"),
        (on(ARN + "${aws:key}*" * 900 + "b"), "a" * 10 * KB),
        (on(*(f"{ARN}*{n}*?" for n in range(1 * KB))), "a" * KB),
        (where("StringLike", *(f"?{n}*?" for n in range(2 * KB))), ""),
        (where("ArnLike", *(f"*:*:*:*:*:?{n}*?" for n in range(1 * KB))), ""),
        (where("StringLike", "*a" * 5 * KB + "b"), ""),
        (where("StringLike", "a*?" * 3 * KB + "b"), ""),
        (where("ArnLike", "*a" * 2 * KB + ":*?a" * 900), ""),
        (where("StringEquals", "${aws:key, '" + "," * 9 * KB), ""),
        (where("NumericLessThan", "1" * 10 * KB), ""),
        (where("DateLessThan", "1" * 10 * KB), ""),
        (where("IpAddress", "1:" * 5 * KB), ""),
        (where("BinaryEquals", "a" * 10 * KB), ""),
    ],
    ids=lambda value: str(value)[70:100],
)
def test_ten_kilobytes_against_ten(policy: dict[str, Any], name: str) -> None:
    key = ":" * 9 + "a" * 10 * KB if policy["Resource"] == "*" else "a"

    def ask() -> None:
        made = Applying(compiled("p", document(policy)))
        question = Question(ALICE, "s3:GetObject", ARN + name, Context({"aws:key": key}))
        decide(made, question)

    assert cpu_s(ask) < CPU_S


@pytest.mark.control("the same pattern as a regular expression takes twice as long with each star")
def test_the_control_of_patterns() -> None:
    def tries(stars: int) -> float:
        pattern = re.compile(".*a" * stars + ".*b")
        return cpu_s(lambda: pattern.fullmatch("a" * 24))

    assert tries(8) > 10 * tries(4)


def many(count: int) -> Statements:
    """Policies that each name another endpoint and another bucket."""
    policies = [
        compiled(
            f"p{n}",
            document(
                statement(
                    Action=["sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"],
                    Resource=f"arn:aws:sagemaker:us-east-1:1:endpoint/e{n}",
                ),
                statement(Action="s3:*", Resource=[f"{ARN}b{n}", f"{ARN}b{n}/*"]),
            ),
        )
        for n in range(count)
    ]
    return together("identity-based policy", policies)


def test_policies_on_other_resources_cost_next_to_nothing() -> None:
    arn = "arn:aws:sagemaker:us-east-1:1:endpoint/e0"

    def asking(count: int) -> Callable[[], None]:
        made = Applying(many(count))

        def ask() -> None:
            for _ in range(500):
                question = Question(ALICE, "sagemaker:DescribeEndpoint", arn, Context())
                assert decide(made, question).allowed

        return ask

    one, two_hundred = asking(1), asking(200)
    one(), two_hundred()
    assert cpu_s(two_hundred) < 2 * cpu_s(one)


def test_what_is_kept_of_actions_has_a_bound() -> None:
    made = Applying(many(10))

    def ask(first: int) -> None:
        for n in range(first, first + 3 * KB):
            decide(made, Question(ALICE, f"s3:Action{n}", f"{ARN}b1/k", Context()))

    ask(0)
    tracemalloc.start()
    try:
        ask(3 * KB)
        ask(6 * KB)
        before = tracemalloc.get_traced_memory()[0]
        ask(9 * KB)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 50 * KB
