"""The Debugger's tensor rules on tensors made up for that: each has what it finds, and what not."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.runtime.tensor_rules import main

Values = Mapping[int, tuple[str, Any]]  # step -> (mode, array)


class Made:
    """Tensors in memory, as smdebug's trial shows them."""

    def __init__(self, tensors: Mapping[str, Values], **collections: Sequence[str]) -> None:
        self.tensors, self.collections = tensors, collections

    def names(self, collection: str | None = None, regex: str | None = None) -> list[str]:
        if collection is not None:
            return [n for n in self.collections.get(collection, ()) if n in self.tensors]
        return [n for n in self.tensors if regex is None or re.match(regex, n)]

    def steps(self, name: str, mode: str | None = None) -> list[int]:
        return [s for s, (m, _) in self.tensors[name].items() if mode in (None, m)]

    def value(self, name: str, step: int) -> Any:
        return np.asarray(self.tensors[name][step][1])


def train(*values: Any, every: int = 1) -> Values:
    return {n * every: ("TRAIN", value) for n, value in enumerate(values)}


def loss(values: Values) -> Made:
    return Made({"loss": values}, losses=["loss"])


def epochs(*pairs: tuple[float, float], batches: int = 2) -> Made:
    """Phases of training and validation in turn, with these losses."""
    values = list[tuple[str, float]]()
    for trained, validated in pairs:
        values += [("TRAIN", trained)] * batches + [("EVAL", validated)] * batches
    return loss(dict(enumerate(values)))


def gradient(*arrays: Any, **more: Values) -> Made:
    return Made({"gradient/w": train(*arrays), **more}, gradients=["gradient/w"])


WIDE, FLAT = np.linspace(-1, 1, 50), np.full(50, 1e-9)
LAYER = {"a_relu_input": train(WIDE), "b_relu_input": train(WIDE * 2)}
FAR = {"a_relu_input": train(WIDE, WIDE), "b_relu_input": train(WIDE * 2, WIDE * 4)}
FALLING = [3 * 0.9**n for n in range(30)]
LEVEL = [1.0] * 30
CASES: list[tuple[str, dict[str, str], Made, str]] = [
    ("VanishingGradient", {}, gradient(WIDE, WIDE), "no"),
    ("VanishingGradient", {}, gradient(WIDE, WIDE, FLAT), "2"),
    ("VanishingGradient", {}, gradient(WIDE, WIDE * 1e-6), "no"),
    ("VanishingGradient", {"threshold": "0.001"}, gradient(WIDE, WIDE * 1e-6), "1"),
    ("VanishingGradient", {"threshold": "x"}, gradient(WIDE), "The parameter threshold is not"),
    ("VanishingGradient", {"threshold": "nan"}, gradient(WIDE), "The parameter threshold is not"),
    ("VanishingGradient", {}, loss(train(1)), "No gradients were saved"),
    ("Overfit", {}, epochs((1, 1.05), (0.5, 0.52), (0.4, 0.43)), "no"),
    ("Overfit", {}, epochs((1, 1.05), (0.5, 0.7), (0.4, 0.43)), "no"),  # once is patience
    ("Overfit", {}, epochs((1, 1.05), (0.5, 0.7), (0.4, 0.9)), "11"),
    ("Overfit", {"patience": "0"}, epochs((1, 1.05), (0.5, 0.7), (0.4, 0.43)), "7"),
    ("Overfit", {"ratio_threshold": "2"}, epochs((1, 1.05), (0.5, 0.7), (0.4, 0.9)), "no"),
    ("Overfit", {"start_step": "6"}, epochs((1, 9), (1, 9), (1, 1)), "no"),
    ("Overfit", {}, loss(train(1, 2)), "No losses of validation (modes.EVAL) were saved"),
    ("Overtraining", {}, epochs(*((1 / n, 2 / n) for n in range(1, 8))), "no"),
    ("Overtraining", {}, epochs(*([(1, 1)] * 8)), "12"),
    ("Overtraining", {"patience_train": "99"}, epochs(*([(1, 1)] * 8)), "23"),
    ("Overtraining", {"delta": "5"}, epochs(*((1 / n, 2 / n) for n in range(1, 8))), "12"),
    ("Overtraining", {"tensor_regex": "("}, epochs((1, 1)), "'(' is not a regular expression"),
    ("PoorWeightInitialization", {}, Made(LAYER), "no"),
    ("PoorWeightInitialization", {}, Made(FAR), "1"),
    ("PoorWeightInitialization", {"threshold": "99"}, Made(FAR), "no"),
    ("PoorWeightInitialization", {"activation_inputs_regex": "a_.*"}, Made(FAR), "no"),
    ("PoorWeightInitialization", {}, gradient(WIDE), "no"),
    ("PoorWeightInitialization", {}, gradient(FLAT), "0"),
    ("PoorWeightInitialization", {}, gradient(*[WIDE] * 10, FLAT), "no"),  # steps: 10
    ("PoorWeightInitialization", {"steps": "11"}, gradient(*[WIDE] * 10, FLAT), "10"),
    ("PoorWeightInitialization", {"distribution_range": "0"}, gradient(FLAT), "no"),
    ("PoorWeightInitialization", {}, loss(train(*FALLING)), "no"),
    ("PoorWeightInitialization", {}, loss(train(*LEVEL)), "6"),
    ("PoorWeightInitialization", {"patience": "20"}, loss(train(*LEVEL)), "no"),
    ("PoorWeightInitialization", {}, Made({"other": train(1)}), "No inputs of activations"),
    ("LossNotDecreasing", {}, loss(train(*FALLING)), "no"),
    ("LossNotDecreasing", {}, loss(train(*LEVEL)), "10"),
    # AWS's example: saved every 3 steps, num_steps 10: step 12 is compared with step 0.
    ("LossNotDecreasing", {}, loss(train(*LEVEL, every=3)), "12"),
    ("LossNotDecreasing", {"num_steps": "20"}, loss(train(*LEVEL)), "20"),
    ("LossNotDecreasing", {"diff_percent": "70"}, loss(train(*FALLING)), "10"),
    ("LossNotDecreasing", {"diff_percent": "0"}, loss(train(*LEVEL)), "no"),
    ("LossNotDecreasing", {"mode": "modes.EVAL"}, epochs(*([(1, 2)] * 20)), "14"),
    ("LossNotDecreasing", {"mode": "odd"}, loss(train(1)), "The parameter mode must be TRAIN"),
    ("LossNotDecreasing", {}, loss(train(1, 1)), "no"),  # fewer steps than num_steps
    ("LossNotDecreasing", {"collection_names": "l"}, Made({"x": train(*LEVEL)}, l=["x"]), "10"),
    ("LossNotDecreasing", {}, Made({"x": train(*LEVEL)}), "No losses were saved"),
    (
        "LossNotDecreasing",
        {},
        loss(train(*([WIDE] * 30))),
        "No loss that was saved in mode",
    ),
]


@pytest.mark.parametrize(("rule", "parameters", "tensors", "expected"), CASES)
def test_rules(
    tmp_path: Path, rule: str, parameters: dict[str, str], tensors: Made, expected: str
) -> None:
    """`expected`: the step at which the condition is met, no, or how the error begins."""
    asked, said = tmp_path / "asked", tmp_path / "said"
    asked.write_text(json.dumps({"one": {"rule": rule, "parameters": parameters}}))
    main(tensors, asked, said)
    verdict = json.loads(said.read_text())["one"]
    if expected == "no":
        assert verdict == {"status": "NoIssuesFound", "details": ""}
    elif expected.isdigit():
        text = (
            f"RuleEvaluationConditionMet: Evaluation of the rule {rule} at step {expected} "
            "resulted in the condition being met"
        )
        assert verdict == {"status": "IssuesFound", "details": text}
    else:
        assert verdict["status"] == "Error" and verdict["details"].startswith(expected)
