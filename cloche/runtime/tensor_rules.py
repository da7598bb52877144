"""SageMaker Debugger's tensor rules, judged by the tensors that smdebug saved.

Parameters and defaults are those of "List of Debugger Built-in Rules"; a rule is asked at each step
in turn, and the first step at which its condition is met ends it, as smdebug.rules does. It runs
in a sandbox (`saved_tensors`): the tensors are a user's, as are patterns.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

TRAIN, EVAL = "TRAIN", "EVAL"
MET = (
    "RuleEvaluationConditionMet: Evaluation of the rule {rule} at step {step} resulted in the "
    "condition being met"
)
WHEN_TRUE = ("1", "true", "yes")


class RuleError(Exception):
    """A rule can't be judged; the text says why."""


class Tensors(Protocol):
    """Saved tensors. A step counts over all modes."""

    def names(self, collection: str | None = None, regex: str | None = None) -> Sequence[str]:
        """Return the names of a collection's tensors, or of those that a pattern matches."""

    def steps(self, name: str, mode: str | None = None) -> Sequence[int]:
        """Return the steps that have a value, of one mode or of all."""

    def value(self, name: str, step: int) -> Any:
        """Return the array of a step."""


Parameters = Mapping[str, str]
Rule = Callable[[Tensors, Parameters], int | None]  # the step at which the condition is met


def number(parameters: Parameters, name: str, default: float) -> float:
    """Return a parameter that is a number."""
    try:
        found = float(parameters.get(name, default))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise RuleError(f"The parameter {name} is not a number: {parameters[name][:80]!r}")
    return found


def listed(parameters: Parameters, name: str) -> list[str]:
    """Return a parameter that is a list: texts with commas between them."""
    return [part.strip() for part in parameters.get(name, "").split(",") if part.strip()]


def matching(tensors: Tensors, patterns: Sequence[str]) -> list[str]:
    """Return the names that one of the patterns matches."""
    found = dict[str, None]()
    for pattern in patterns:
        try:
            found |= dict.fromkeys(tensors.names(regex=pattern))
        except re.error as error:
            raise RuleError(f"{pattern!r} is not a regular expression: {error}") from error
    return list(found)


def in_turn(tensors: Tensors, names: Sequence[str], mode: str | None = None) -> Iterator[Any]:
    """Yield (step, name, array) of the tensors, step by step."""
    found = sorted((step, name) for name in names for step in tensors.steps(name, mode))
    for step, name in found:
        yield step, name, tensors.value(name, step)


def vanishing_gradient(tensors: Tensors, parameters: Parameters) -> int | None:
    """A gradient's mean magnitude is below `threshold` (1e-7)."""
    threshold = number(parameters, "threshold", 1e-7)
    names = gradients(tensors)
    if not names:
        raise RuleError("No gradients were saved: add the collection gradients to the hook.")
    for step, _, array in in_turn(tensors, names):
        if array.size and np.abs(array).mean() < threshold:
            return int(step)
    return None


def gradients(tensors: Tensors) -> Sequence[str]:
    """Return the names of gradients."""
    return tensors.names("gradients") or tensors.names(regex="^gradient/")


def losses(tensors: Tensors, parameters: Parameters) -> Sequence[str]:
    """Return the names of losses: those that the parameters name, else all that were saved."""
    named = matching(tensors, listed(parameters, "tensor_regex"))
    for collection in listed(parameters, "collection_names"):
        named += tensors.names(collection)
    if not named or (
        "use_losses_collection" in parameters
        and parameters["use_losses_collection"].lower() in WHEN_TRUE
    ):
        named += tensors.names("losses")
    if not named:
        raise RuleError("No losses were saved: add the collection losses to the hook.")
    return list(dict.fromkeys(named))


def scalars(tensors: Tensors, names: Sequence[str], mode: str) -> list[tuple[int, float]]:
    """Return each step of a mode with the mean of what the losses have there; only scalars."""
    found = dict[int, list[float]]()
    for step, _, array in in_turn(tensors, names, mode):
        if array.size == 1:
            found.setdefault(step, []).append(float(array.reshape(())))
    return [(step, sum(values) / len(values)) for step, values in found.items()]


def both(tensors: Tensors, parameters: Parameters) -> tuple[list[tuple[int, float]], ...]:
    """Return the losses of training and of validation, by step."""
    names = losses(tensors, parameters)
    train, validation = (scalars(tensors, names, mode) for mode in (TRAIN, EVAL))
    if not train or not validation:
        lacking = "training (modes.TRAIN)" if not train else "validation (modes.EVAL)"
        raise RuleError(f"No losses of {lacking} were saved: the script sets the hook's mode.")
    return train, validation


def overfit(tensors: Tensors, parameters: Parameters) -> int | None:
    """Validation's mean loss is above training's by more than `ratio_threshold` (0.1) of it.

    Compared are the means of each phase of validation and of the training before it, from
    `start_step` (0) on; the condition is met when it was so more than `patience` (1) times on end.
    """
    start = number(parameters, "start_step", 0)
    patience = number(parameters, "patience", 1)
    threshold = number(parameters, "ratio_threshold", 0.1)
    train, validation = both(tensors, parameters)
    above = 0
    for step, trained, validated in phases(train, validation, start):
        worse = validated - trained > threshold * abs(trained)
        above = above + 1 if worse else 0
        if above > patience:
            return step
    return None


def phases(
    train: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]], start: float
) -> Iterator[tuple[int, float, float]]:
    """Yield the last step of each phase of validation with the mean losses of training, and it."""
    marked = sorted([(*one, TRAIN) for one in train] + [(*one, EVAL) for one in validation])
    trained, validated, last = list[float](), list[float](), 0
    for step, loss, mode in (*marked, (0, 0.0, TRAIN)):
        if step < start and (step, loss) != (0, 0.0):
            continue
        if mode == EVAL:
            validated.append(loss)
            last = step
            continue
        if validated and trained:
            yield last, sum(trained) / len(trained), sum(validated) / len(validated)
            trained = []
        validated = []
        trained.append(loss)


def overtraining(tensors: Tensors, parameters: Parameters) -> int | None:
    """A loss has no new best, by `delta` (0.01), for longer than its patience.

    That is `patience_train` (5) saved steps of training, `patience_validation` (10) of validation.
    """
    delta = number(parameters, "delta", 0.01)
    patience = {
        TRAIN: number(parameters, "patience_train", 5),
        EVAL: number(parameters, "patience_validation", 10),
    }
    train, validation = both(tensors, parameters)
    best, waited = dict.fromkeys(patience, math.inf), dict.fromkeys(patience, 0)
    marked = sorted([(*one, TRAIN) for one in train] + [(*one, EVAL) for one in validation])
    for step, loss, mode in marked:
        if loss < best[mode] - delta:
            best[mode], waited[mode] = loss, 0
            continue
        waited[mode] += 1
        if waited[mode] > patience[mode]:
            return step
    return None


def poor_weight_initialization(tensors: Tensors, parameters: Parameters) -> int | None:
    """In the first `steps` (10) layers' inputs, gradients or the loss are as of bad weights.

    The variances of what `activation_inputs_regex` (.*relu_input) matches differ by more than
    `threshold` (10), a gradient's 5th and 95th percentile by less than `distribution_range`
    (0.001), or the loss has no new best for more than `patience` (5) steps.
    """
    patterns = listed(parameters, "activation_inputs_regex") or [".*relu_input"]
    most = int(number(parameters, "steps", 10))
    inputs, found = matching(tensors, patterns), gradients(tensors)
    trained = scalars(tensors, tensors.names("losses"), TRAIN)[:most]
    if not (inputs or found or trained):
        raise RuleError(
            "No inputs of activations, gradients or losses were saved: "
            "add a collection to the hook."
        )
    met = [
        uneven(tensors, inputs, number(parameters, "threshold", 10.0), most),
        narrow(tensors, found, number(parameters, "distribution_range", 0.001), most),
        stalled(trained, number(parameters, "patience", 5)),
    ]
    return min((step for step in met if step is not None), default=None)


def first_steps(tensors: Tensors, names: Sequence[str], most: int) -> dict[int, list[Any]]:
    """Return the arrays of the first steps."""
    found = dict[int, list[Any]]()
    for step in sorted({step for name in names for step in tensors.steps(name, TRAIN)})[:most]:
        having = (name for name in names if step in tensors.steps(name, TRAIN))
        found[step] = [tensors.value(name, step) for name in having]
    return found


def uneven(tensors: Tensors, names: Sequence[str], threshold: float, most: int) -> int | None:
    """Return the first step at which layers' variances differ by more than a factor."""
    for step, arrays in first_steps(tensors, names, most).items():
        variances = [float(np.var(array)) for array in arrays if array.size > 1]
        if len(variances) > 1 and max(variances) > threshold * min(variances):
            return step
    return None


def narrow(tensors: Tensors, names: Sequence[str], width: float, most: int) -> int | None:
    """Return the first step at which a gradient's values are all but the same."""
    for step, arrays in first_steps(tensors, names, most).items():
        for array in arrays:
            if array.size > 1:
                low, high = np.percentile(array, [5, 95])
                if high - low < width:
                    return step
    return None


def stalled(values: Sequence[tuple[int, float]], patience: float) -> int | None:
    """Return the first step at which there was no new best for too long."""
    best, waited = math.inf, 0
    for step, loss in values:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > patience:
            return step
    return None


def loss_not_decreasing(tensors: Tensors, parameters: Parameters) -> int | None:
    """A loss is not `diff_percent` (0.1) below what it was at least `num_steps` (10) before.

    With a `diff_percent` of 0 it may grow by `increase_threshold_percent` (5). `mode` is TRAIN,
    EVAL or GLOBAL (all of them). Losses of fewer steps meet no condition.
    """
    apart = number(parameters, "num_steps", 10)
    wanted = number(parameters, "diff_percent", 0.1)
    allowed = number(parameters, "increase_threshold_percent", 5)
    mode = parameters.get("mode", "GLOBAL").upper().removeprefix("MODES.")
    if mode not in (TRAIN, EVAL, "PREDICT", "GLOBAL"):
        raise RuleError(f"The parameter mode must be TRAIN, EVAL, PREDICT or GLOBAL: {mode[:80]!r}")
    found, numbers = list[int](), False
    for name in losses(tensors, parameters):
        steps = tensors.steps(name, None if mode == "GLOBAL" else mode)
        values = [(step, tensors.value(name, step)) for step in steps]
        curve = [(step, float(array.reshape(()))) for step, array in values if array.size == 1]
        numbers |= bool(curve)
        before = curve[0] if curve else (0, 0.0)
        for step, loss in curve[1:]:
            if step - before[0] < apart:
                continue
            change = 100 * (before[1] - loss) / abs(before[1]) if before[1] else -math.inf
            if change < wanted if wanted > 0 else -change > allowed:
                found.append(step)
                break
            before = step, loss
    if not numbers:
        raise RuleError(f"No loss that was saved in mode {mode} is a single number.")
    return min(found, default=None)


RULES: Mapping[str, Rule] = {
    "LossNotDecreasing": loss_not_decreasing,
    "Overfit": overfit,
    "Overtraining": overtraining,
    "PoorWeightInitialization": poor_weight_initialization,
    "VanishingGradient": vanishing_gradient,
}


def judge(rule: str, parameters: Parameters, tensors: Tensors) -> dict[str, str]:
    """Return what a rule says of the tensors."""
    try:
        step = RULES[rule](tensors, parameters)
    except RuleError as error:
        return {"status": "Error", "details": str(error)}
    except Exception as error:  # a tensor that is none, or too large
        return {"status": "Error", "details": f"{type(error).__name__}: {error}"}
    if step is None:
        return {"status": "NoIssuesFound", "details": ""}
    return {"status": "IssuesFound", "details": MET.format(rule=rule, step=step)}


def main(tensors: Tensors, rules: Path, verdicts: Path) -> None:
    """Judge rules, {KEY: {"rule", "parameters"}}, and write {KEY: {"status", "details"}}.

    The verdicts are there whole or not at all.
    """
    asked = json.loads(rules.read_text())
    said = {key: judge(one["rule"], one["parameters"], tensors) for key, one in asked.items()}
    new = verdicts.with_suffix(".new")
    new.write_text(json.dumps(said))
    os.replace(new, verdicts)
