"""What the tour did: each step, how long it took, and how it ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(slots=True)
class Step:
    """One step of the story."""

    number: int
    title: str
    seconds: float = 0.0
    facts: list[str] = field(default_factory=list)  # what came of it, a line each


@dataclass(slots=True)
class Journal:
    """The steps so far; the last one is under way, or failed."""

    console: Console
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Announce a step, time it, and show what came of it."""
        step = Step(len(self.steps) + 1, title)
        self.steps.append(step)
        self.console.print()
        self.console.rule(f"[bold]{step.number}  {title}", align="left")
        begun = time.monotonic()
        try:
            yield step
        finally:
            step.seconds = time.monotonic() - begun
        for fact in step.facts:
            self.console.print(f"   {fact}", markup=False, highlight=False, soft_wrap=True)
        self.console.print(f"   [dim]{duration(step.seconds)}[/]", highlight=False)


def duration(seconds: float) -> str:
    """Return a length of time as people say it: `0.4 s`, `12 s`, `3 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
