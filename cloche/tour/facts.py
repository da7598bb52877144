"""What the story found out, as the report shows it: plain data, so that a page can be made of
made-up numbers too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, as hpo.py wrote it to history.json."""

    number: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float


@dataclass(frozen=True, slots=True)
class Use:
    """A metric over time: seconds since the job was created, and the value then."""

    seconds: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, the score the model gave it, and that score as a share of all (softmax)."""

    name: str
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A picture that was sent to the endpoint, and what came back."""

    jpeg: bytes  # small enough for a page
    truth: str
    guesses: tuple[Guess, ...]  # the best three, best first
    seconds: float

    @property
    def right(self) -> bool:
        """Tell whether the best guess is the picture's class."""
        return self.guesses[0].name == self.truth


@dataclass(slots=True)
class Facts:
    """All that the report tells."""

    title: str  # "handwritten digits"
    day: str
    seconds: float = 0.0
    data: str = ""  # "10 classes; pictures: …"
    backbone: str = ""
    starting_s: float = 0.0  # before the first step: data looked through, platform up, SDK imported
    steps: Sequence[tuple[str, float, Sequence[str]]] = ()  # title, seconds, what came of it
    epochs: Sequence[Epoch] = ()
    test_loss: float = 0.0
    test_accuracy: float = 0.0
    chance: float = 0.0  # accuracy of guessing blindly
    cpu: Use = Use((), ())
    memory: Use = Use((), ())
    answers: Sequence[Answer] = ()
    kept: Mapping[str, str] = field(default_factory=dict)  # what: where
    next_steps: Sequence[tuple[str, str]] = ()  # what for, command
