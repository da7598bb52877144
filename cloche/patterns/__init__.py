"""Users' regular expressions, in bounded time: linear where RE2 can, else in a child with a limit.

A pattern means what it means to Python's `re`, as its documentation and users' habits have it. What
`linear` can say in RE2's syntax runs in this process, in linear time and without the interpreter's
lock; everything else in a child that is stopped when it takes too long. Both count the processor's
time: a pattern starts with `FIRST_S`, earns more with the text that it is given, and is off for
good when it has used what it had.

Everything here blocks: it is called from the threads of `run`, never on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from cloche.core import executors
from cloche.patterns.child import Child, Exceeded
from cloche.patterns.linear import Unsure, compiled, translate
from cloche.patterns.worker import number

__all__ = ["LONGEST_TEXT", "BadPattern", "Exceeded", "Searches", "groups", "matched", "run"]

LONGEST_TEXT = 256 * 1024  # characters of a line that are searched: CloudWatch's largest event
FIRST_S, MOST_S = 0.5, 2.0  # processor's time of one pattern: at first, and saved up
PER_CHARACTER_S, PER_TEXT_S = 1e-6, 2e-5  # earned
LEAST_S = 0.01  # the child's clock ticks
# Numbers of a batch: so many a text, and so many in any case (more than one line may have).
MOST_VALUES, ALWAYS_VALUES = 20, 5000
CHECK_S = 1.0  # for compiling, and matching a few names

P = ParamSpec("P")
R = TypeVar("R")


class BadPattern(Exception):
    """The text is no regular expression; says why."""


async def run(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run work with patterns in a thread for that."""
    return await executors.PATTERNS.run(work, *args, **kwargs)


def groups(patterns: Sequence[str]) -> list[int | BadPattern]:
    """Return how many groups each pattern has, or what is wrong with it; in bounded time."""
    found: list[int | BadPattern] = []
    child, left_s = Child(), CHECK_S
    try:
        for pattern in patterns:
            try:
                linear = translate(pattern)
                compiled(linear)
                found.append(linear.groups)
                continue
            except Unsure:
                pass
            try:
                said = child.ask({"pattern": pattern, "texts": [], "most": 0}, max(LEAST_S, left_s))
                left_s -= said["cpu_s"]
                wrong = said.get("error")
                found.append(BadPattern(wrong) if wrong is not None else said["groups"])
            except Exceeded:
                found.append(BadPattern("it takes too long to compile"))
                left_s = 0.0
    finally:
        child.close()
    return found


def matched(pattern: str, names: Sequence[str]) -> list[bool]:
    """Tell of each name whether the pattern matches at its start; BadPattern, Exceeded."""
    try:
        linear = translate(pattern)
        if all(fits(name, linear.ascii) for name in names):
            expression = compiled(linear, anchored=True)
            return [expression.search(name.encode()) is not None for name in names]
    except Unsure:
        pass
    child = Child()
    try:
        said = child.ask({"pattern": pattern, "names": list(names)}, CHECK_S)
    finally:
        child.close()
    if "error" in said:
        raise BadPattern(said["error"])
    result: list[bool] = said["matched"]
    return result


def fits(text: str, ascii: bool) -> bool:
    """Tell whether RE2 reads a text as Python does: `$` differs before a line's end."""
    if "\n" in text:
        return False
    return text.isascii() or not (ascii or any("\ud800" <= each <= "\udfff" for each in text))


@dataclass(slots=True)
class PatternSearch:
    """One pattern at work; `left_s` is what it may still use."""

    pattern: str
    expression: Any = None  # RE2's, if it can say it
    ascii: bool = False
    left_s: float = FIRST_S

    def __post_init__(self) -> None:
        try:
            linear = translate(self.pattern)
            self.expression, self.ascii = compiled(linear), linear.ascii
        except Unsure:
            self.expression = None


@dataclass(slots=True)
class Searches:
    """The patterns of one job, by number; those that are `off` are not to be searched for."""

    patterns: Sequence[str]
    off: set[int] = field(default_factory=set)
    why: dict[int, str] = field(default_factory=dict)  # those that went off here, and the reason
    searches: dict[int, PatternSearch] = field(default_factory=dict)
    child: Child = field(default_factory=Child)

    def numbers(self, which: int, texts: Sequence[str]) -> list[tuple[int, float]]:
        """Return the numbers in the first group of every match, each with its text's place.

        Exceeded when the pattern used more than it may, or is none: it is off from then on.
        """
        try:
            return self._numbers(which, texts)
        except Exceeded as exceeded:
            self.off.add(which)
            self.why[which] = str(exceeded)
            raise

    def _numbers(self, which: int, texts: Sequence[str]) -> list[tuple[int, float]]:
        search = self.searches.get(which)
        if search is None:
            search = self.searches[which] = PatternSearch(self.patterns[which])
        cut = [text[:LONGEST_TEXT] for text in texts]
        earned_s = sum(map(len, cut)) * PER_CHARACTER_S + len(cut) * PER_TEXT_S
        search.left_s = min(search.left_s + earned_s, max(MOST_S, earned_s))
        most = max(ALWAYS_VALUES, MOST_VALUES * len(cut))
        if search.expression is None:
            here, there = [], list(range(len(cut)))
        else:
            here = [place for place, text in enumerate(cut) if fits(text, search.ascii)]
            there = sorted(set(range(len(cut))) - set(here)) if len(here) < len(cut) else []
        found = self._linear(search, [(place, cut[place]) for place in here], most)
        if there:
            found += self._asked(search, [(place, cut[place]) for place in there], most)
            found.sort(key=lambda one: one[0])
        return found

    def close(self) -> None:
        """End the child, if there is one."""
        self.child.close()

    def _linear(
        self, search: PatternSearch, texts: Sequence[tuple[int, str]], most: int
    ) -> list[tuple[int, float]]:
        """Search with RE2: no single search is long, so it is enough to look between them."""
        found: list[tuple[int, float]] = []
        begin = time.thread_time()
        for place, text in texts:
            for match in search.expression.finditer(text.encode()):
                value = number((match.group(1) or b"").decode())
                if value is not None:
                    found.append((place, value))
                    if len(found) > most:
                        raise Exceeded(f"found more than {most} values in {len(texts)} lines")
                if time.thread_time() - begin > search.left_s:
                    raise Exceeded("took too long")
            if time.thread_time() - begin > search.left_s:
                raise Exceeded("took too long")
        search.left_s -= time.thread_time() - begin
        return found

    def _asked(
        self, search: PatternSearch, texts: Sequence[tuple[int, str]], most: int
    ) -> list[tuple[int, float]]:
        """Search with Python's `re`, in the child."""
        request = {
            "pattern": search.pattern,
            "texts": [text for _, text in texts],
            "most": most,
        }
        said = self.child.ask(request, max(LEAST_S, search.left_s))
        search.left_s -= said["cpu_s"]
        if "error" in said:
            raise Exceeded(f"can't be searched for: {said['error']}")
        if said.get("many"):
            raise Exceeded(f"found more than {most} values in {len(texts)} lines")
        if search.left_s < 0:
            raise Exceeded("took too long")
        return [(texts[place][0], value) for place, value in said["found"]]
