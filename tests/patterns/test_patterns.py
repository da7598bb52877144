"""Users' patterns at work: numbers, bounds, and what is wrong with one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche import patterns
from cloche.patterns import LONGEST_TEXT, BadPattern, Exceeded, Searches, groups, matched
from cloche.patterns.child import Child


@pytest.fixture
def searches() -> Iterator[list[Searches]]:
    made: list[Searches] = []
    yield made
    for one in made:
        one.close()


def of(made: list[Searches], *given: str) -> Searches:
    made.append(Searches(given))
    return made[-1]


def test_numbers_in_both_engines(searches: list[Searches]) -> None:
    given = [r"loss: (\d+\.?\d*)", r"(?<=loss: )(\d+\.?\d*)", r"loss(: nan|: inf)?"]
    wanted = of(searches, *given)
    texts = ["loss: 1.5, loss: 2", "nothing", "█ loss: 3", "loss: ٤"]
    texts += ["x" * 5000 + "loss: 9", "x" * LONGEST_TEXT + "loss: 9"]
    expected = [(0, 1.5), (0, 2.0), (2, 3.0), (3, 4.0), (4, 9.0)]
    assert wanted.numbers(0, texts) == expected
    assert wanted.numbers(1, texts) == expected
    assert wanted.numbers(2, ["loss", "loss: nan", "loss: inf"]) == []


def test_a_pattern_without_an_end_is_off_and_others_go_on(searches: list[Searches]) -> None:
    wanted = of(searches, r"((?:a+)+)$", r"(?!x)((?:a+)+)$", r"loss (\d)")
    text = "a" * 60 + "!"
    assert wanted.numbers(0, [text]) == []  # linear
    begin = time.process_time()
    with pytest.raises(Exceeded, match=r"took longer than 0\.5 s"):
        wanted.numbers(1, [text])
    assert time.process_time() - begin < 1  # another process did it
    assert wanted.numbers(2, ["loss 1"]) == [(0, 1.0)]
    assert wanted.off == {1} and list(wanted.why) == [1]


def test_time_is_counted_over_batches(searches: list[Searches]) -> None:
    """Each batch is quick; together they take more than their few lines earn."""
    wanted = of(searches, r"(?!x)((?:a|aa)+)$")
    with pytest.raises(Exceeded):
        for _ in range(1000):
            wanted.numbers(0, ["a" * 27 + "!"])
    assert wanted.why[0].startswith("took")


def test_a_child_that_is_gone_is_started_again() -> None:
    child = Child()
    try:
        request = {"pattern": "(1)", "texts": ["1"], "most": 5}
        assert child.ask(request, 1.0)["found"] == [[0, 1.0]]
        assert child.process is not None
        os.kill(child.process.pid, 9)
        with pytest.raises(Exceeded):
            child.ask(request, 1.0)
        assert child.ask(request, 1.0)["found"] == [[0, 1.0]]
    finally:
        child.close()


def test_a_child_ends_with_who_asked() -> None:
    child = Child()
    child.ask({"pattern": "(1)", "texts": [], "most": 5}, 1.0)
    process = child.process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    child.close()


def test_groups_and_what_is_wrong() -> None:
    found = groups(["a(b)(c)", "x", "(", r"(?<=a)(b)", "a{99999999999}", "(?P<a>x)(?P<a>y)"])
    assert found[0] == 2 and found[1] == 0 and found[3] == 1
    assert str(found[2]) == "missing ), unterminated subpattern at position 0"
    assert str(found[4]) == "the repetition number is too large"
    assert isinstance(found[5], BadPattern) and "redefinition of group name" in str(found[5])


def test_matched_is_at_the_start() -> None:
    names = ["loss", "train:Loss", "acc", "äloss"]
    assert matched("(?i).*loss", names) == [True, True, False, True]
    assert matched("loss|acc", names) == [True, False, True, False]
    assert matched(r"(?!loss)\w", names) == [False, True, True, True]
    with pytest.raises(BadPattern, match="nothing to repeat"):
        matched("*", names)
    with pytest.raises(Exceeded):
        matched("((a|a)*)*b", ["a" * 60])


async def test_they_have_threads_of_their_own() -> None:
    before = set(Path("/proc/self/task").iterdir())
    assert await patterns.run(lambda: groups(["(a)"])) == [1]
    assert len(set(Path("/proc/self/task").iterdir()) - before) <= 2
