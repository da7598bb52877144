"""Judges Debugger rules by the tensors that smdebug saved, in a sandbox.

    python saved_tensors.py TENSORS RULES VERDICTS

TENSORS: a folder as smdebug writes it. RULES and VERDICTS: files (`tensor_rules.main`).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from smdebug.core.modes import ModeKeys
from smdebug.trials import create_trial

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where `cloche.runtime` is found

from cloche.runtime import tensor_rules


class Saved:
    """smdebug's trial, as rules look at it."""

    def __init__(self, folder: str) -> None:
        self.trial = create_trial(folder)

    def names(self, collection: str | None = None, regex: str | None = None) -> Sequence[str]:
        """Return the names of a collection's tensors, or of those that a pattern matches."""
        if collection is not None and collection not in self.trial.collections():
            return []
        found: list[str] = self.trial.tensor_names(collection=collection, regex=regex)
        return found

    def steps(self, name: str, mode: str | None = None) -> Sequence[int]:
        """Return the steps that have a value, of one mode or of all."""
        tensor = self.trial.tensor(name)
        if mode is None:
            return list(tensor.steps(show_incomplete_steps=True))
        key = ModeKeys[mode]
        steps = tensor.steps(mode=key, show_incomplete_steps=True)
        return [self.trial.global_step(key, step) for step in steps]

    def value(self, name: str, step: int) -> Any:
        """Return the array of a step."""
        return np.asarray(self.trial.tensor(name).value(step))


if __name__ == "__main__":
    tensor_rules.main(Saved(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
