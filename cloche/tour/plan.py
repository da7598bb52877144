"""What the tour was asked to do, handed from its parent process to the one that drives boto3."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

TRIALS = 12
INSTANCES = 4


@dataclass(frozen=True, slots=True)
class TourSize:
    """How much work the tour does."""

    epochs: int  # of every training job
    trials: int = TRIALS  # of the tuning job
    instances: int = INSTANCES  # of the job that trains on several


@dataclass(frozen=True, slots=True, kw_only=True)
class TourPlan:
    """One run of the tour."""

    home: str  # the platform's home folder
    data: str | None  # an image folder; None: the handwritten digits
    data_name: str  # for headings: "handwritten digits"
    prefix: str  # of the names of what is created: "digits"
    source: str  # the folder with hpo.py and inference.py
    size: TourSize
    started: float  # seconds since 1970
    stays_up: bool  # the platform was up before the tour, and stays so

    @property
    def folder(self) -> Path:
        """Where the tour keeps its own files: data that it made, and the reports."""
        return tour_folder(Path(self.home))

    def to_json(self) -> str:
        """Return the plan as one command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TourPlan":
        """Return the plan that `to_json` wrote."""
        given = json.loads(text)
        return cls(**given | {"size": TourSize(**given["size"])})


def tour_folder(home: Path) -> Path:
    """Return where a tour in this home folder keeps its own files."""
    return home / "tour"
