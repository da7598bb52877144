"""How far a long check goes: a seeded sample in `make test`, all of it in `make soak`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """What the fixture `extent` gives a test."""

    soak: bool
    seed: int

    def of(self, sample: int, full: int) -> int:
        """Return how many: `sample` in `make test`, `full` in `make soak`."""
        return full if self.soak else sample
