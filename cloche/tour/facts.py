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
    """A metric over time: seconds since the work was asked for, and the value then."""

    seconds: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, the score the model gave it, and that score as a share of all (softmax)."""

    name: str
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A picture that was sent to the endpoint, and what came back."""

    jpeg: bytes  # small enough for a page
    truth: str
    guesses: tuple[Guess, ...]  # the best three, best first
    seconds: float

    @property
    def right(self) -> bool:
        """Tell whether the best guess is the picture's class."""
        return self.guesses[0].name == self.truth


@dataclass(frozen=True, slots=True)
class TourTrial:
    """One training job of the tuning job, as the platform tells of it."""

    number: int  # 1 is the first that was created
    job: str
    learning_rate: float
    batch_size: int
    status: str  # TrainingJobStatus
    step: str = ""  # SecondaryStatus, while it is InProgress
    epoch: int = 0  # the last one in its log
    objective: float | None = None  # of that epoch
    test_loss: float | None = None  # printed once, at the end

    @property
    def early(self) -> bool:
        """Tell whether early stopping ended it: nobody else stops single trials."""
        return self.status == "Stopped"


@dataclass(frozen=True, slots=True)
class Tuning:
    """The search, when it is over."""

    job: str
    trials: tuple[TourTrial, ...]  # by number
    best: TourTrial
    epochs: int  # that a trial goes through when nothing stops it
    parallel: int
    seconds: float

    @property
    def early(self) -> int:
        """How many trials were stopped early."""
        return sum(trial.early for trial in self.trials)

    @property
    def all_epochs(self) -> int:
        """How many epochs there would have been."""
        return self.epochs * len(self.trials)

    @property
    def saved_epochs(self) -> int:
        """How many of them early stopping saved."""
        return sum(self.epochs - trial.epoch for trial in self.trials if trial.early)

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return sum(trial.status == "Failed" for trial in self.trials)


@dataclass(slots=True)
class Trained:
    """A model: the job that trained it, and the endpoint that serves it."""

    job: str
    instances: int
    seconds: float  # of the phase Training: the script from start to end
    backbone: str
    epochs: Sequence[Epoch]
    test_loss: float
    test_accuracy: float
    artifact: str  # s3://…/model.tar.gz
    endpoint: str = ""
    answers: Sequence[Prediction] = ()

    @property
    def name(self) -> str:
        """What the report calls it."""
        return "1 instance" if self.instances == 1 else f"{self.instances} instances"

    @property
    def right(self) -> int:
        """How many pictures its endpoint classified correctly."""
        return sum(answer.right for answer in self.answers)

    @property
    def answer_s(self) -> float:
        """The median time that its endpoint took for an answer."""
        times = sorted(answer.seconds for answer in self.answers)
        return times[len(times) // 2]


@dataclass(frozen=True, slots=True)
class PlainRun:
    """The run of ec2_train.py, outside of the platform."""

    seconds: float
    cpu: Use
    test_accuracy: float
    folder: str  # where TrainedModels/model.pth lies


@dataclass(slots=True)
class Facts:
    """All that the report tells."""

    title: str  # "handwritten digits"
    day: str
    tuning: Tuning
    models: Sequence[Trained]  # on one instance, on several; the same pictures were asked of both
    plain: PlainRun
    seconds: float = 0.0
    data: str = ""  # "10 classes; pictures: …"
    starting_s: float = 0.0  # before the first step: data looked through, platform up, SDK imported
    steps: Sequence[tuple[str, float, Sequence[str]]] = ()  # title, seconds, what came of it
    chance: float = 0.0  # accuracy of guessing blindly
    cpu: Use = Use((), ())  # of the job on one instance
    memory: Use = Use((), ())
    kept: Mapping[str, str] = field(default_factory=dict)  # what: where
    next_steps: Sequence[tuple[str, str]] = ()  # what for, command

    @property
    def asked(self) -> int:
        """How many pictures each endpoint was asked about."""
        return len(self.models[0].answers)

    @property
    def agreed(self) -> int:
        """For how many of them the endpoints named the same class."""
        first, second = (model.answers for model in self.models)
        return sum(
            a.guesses[0].name == b.guesses[0].name for a, b in zip(first, second, strict=True)
        )

    @property
    def apart(self) -> float:
        """How far the endpoints' best scores for one picture are apart at most."""
        first, second = (model.answers for model in self.models)
        return max(
            abs(a.guesses[0].score - b.guesses[0].score) for a, b in zip(first, second, strict=True)
        )
