"""Checkpoints of boosting rounds: `xgboost-checkpoint.<round>`, the newest few are kept."""

import os
import re
import tempfile
from typing import Any

import xgboost as xgb
from xgboost.callback import TrainingCallback

CHECKPOINT_FILENAME = "xgboost-checkpoint"
TEMP_FILE_SUFFIX = ".sagemaker-ignore"
NAME = re.compile(rf"{CHECKPOINT_FILENAME}\.([0-9]+)")


def train(train_args: dict[str, Any], checkpoint_dir: str) -> Any:
    """Do as `xgb.train(**train_args)`, from the newest checkpoint on, and write more."""
    given = dict(train_args)
    model, start = load_checkpoint(checkpoint_dir)
    kept = save_checkpoint(checkpoint_dir, start_iteration=start)
    given["callbacks"] = [*(given.get("callbacks") or ()), kept]
    given["num_boost_round"] = given.get("num_boost_round", 10) - start
    return xgb.train(xgb_model=model, **given)


def rounds(checkpoint_dir: str) -> list[int]:
    """Return the rounds that a folder has checkpoints of, in order."""
    found = map(NAME.fullmatch, os.listdir(checkpoint_dir))
    return sorted(int(match[1]) for match in found if match)


def load_checkpoint(checkpoint_dir: str | None, max_try: int = 5) -> tuple[str | None, int]:
    """Return the newest checkpoint that can be read and the round to go on with; None, 0."""
    if not checkpoint_dir or not os.path.exists(checkpoint_dir):
        return None, 0
    for number in rounds(checkpoint_dir)[: -max_try - 1 : -1]:
        path = os.path.join(checkpoint_dir, f"{CHECKPOINT_FILENAME}.{number}")
        try:
            xgb.Booster().load_model(path)
        except xgb.core.XGBoostError:
            continue
        return path, number + 1
    return None, 0


class SaveCheckpoint(TrainingCallback):
    """Writes a checkpoint after each round, and removes what is older than `max_to_keep`."""

    def __init__(
        self,
        checkpoint_dir: str,
        start_iteration: int = 0,
        max_to_keep: int = 5,
        num_round: int | None = None,
        rank: int = 0,
        iteration: int = 0,
        end_iteration: int | None = None,
        is_master: bool = True,
    ) -> None:
        os.makedirs(checkpoint_dir, exist_ok=True)
        self.checkpoint_dir, self.max_to_keep = checkpoint_dir, max_to_keep
        self.start_iteration, self.writes = start_iteration, is_master and rank == 0
        self.previous = set(rounds(checkpoint_dir))

    def format_path(self, iteration: int) -> str:
        """Return where a round's checkpoint lies."""
        return os.path.join(self.checkpoint_dir, f"{CHECKPOINT_FILENAME}.{iteration}")

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Write a round's checkpoint, whole or not at all."""
        if not self.writes:
            return False
        current = self.start_iteration + epoch
        put(model, self.format_path(current))
        old = current - self.max_to_keep
        if old >= 0 and old not in self.previous and os.path.exists(self.format_path(old)):
            os.remove(self.format_path(old))
        return False


def put(model: Any, path: str) -> None:
    """Write a model to a path by a rename."""
    folder = os.path.dirname(path)
    descriptor, new = tempfile.mkstemp(dir=folder, suffix=TEMP_FILE_SUFFIX)
    os.close(descriptor)
    with open(new, "wb") as file:
        file.write(bytes(model.save_raw(raw_format="ubj")))
    os.replace(new, path)


def save_checkpoint(
    checkpoint_dir: str,
    start_iteration: int = 0,
    max_to_keep: int = 5,
    num_round: int | None = None,
    **others: Any,
) -> SaveCheckpoint:
    """Return a callback that writes checkpoints."""
    return SaveCheckpoint(checkpoint_dir, start_iteration, max_to_keep, num_round, **others)


class SaveIntermediateModel(TrainingCallback):
    """Writes the model over itself after each round."""

    def __init__(
        self, intermediate_model_dir: str, model_name: str, is_master: bool = True
    ) -> None:
        os.makedirs(intermediate_model_dir, exist_ok=True)
        self.path, self.writes = os.path.join(intermediate_model_dir, model_name), is_master

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Write the model, whole or not at all."""
        if self.writes:
            put(model, self.path)
        return False


def save_intermediate_model(
    intermediate_model_dir: str, model_name: str, is_master: bool = True
) -> SaveIntermediateModel:
    """Return a callback that writes the model after each round."""
    return SaveIntermediateModel(intermediate_model_dir, model_name, is_master)
