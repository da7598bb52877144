"""Which hyperparameters to try next. One function a strategy; add yours to STRATEGIES.

A strategy keeps nothing between calls: it sees all trials so far, those that run included, and a
seed. So a restarted server goes on with the same search.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloche.services.sagemaker.tuning.space import SearchSpace, grid

SEEDS = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training job of the search.

    parameters: as text. objective: the last value of the metric. curve: its value at each epoch,
    the first epoch first. state: "stopped" was stopped early, with what it had reached.
    """

    number: int
    parameters: Mapping[str, str]
    state: Literal["running", "completed", "stopped", "failed"]
    objective: float | None = None
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHistory:
    """All that a strategy may look at. `parents` are trials of earlier tuning jobs (warm start)."""

    space: SearchSpace
    minimize: bool
    seed: int
    trials: Sequence[Trial]
    parents: Sequence[Trial] = ()


Strategy = Callable[[SearchHistory], Mapping[str, str] | None]


def bayesian(search: SearchHistory) -> Mapping[str, str] | None:
    """Tree-structured Parzen estimator over all trials; those that run repel new ones."""
    return sampled(search, "parzen")


def random(search: SearchHistory) -> Mapping[str, str] | None:
    """Independent draws from the ranges."""
    return sampled(search, "random")


def exhaustive(search: SearchHistory) -> Mapping[str, str] | None:
    """Return the first combination that no trial has; None when all are tried."""
    tried = {frozenset(trial.parameters.items()) for trial in search.trials}
    every = grid(search.space)
    return next((chosen for chosen in every if frozenset(chosen.items()) not in tried), None)


STRATEGIES: Mapping[str, Strategy] = {
    "Bayesian": bayesian,
    "Random": random,
    "Grid": exhaustive,
    "Hyperband": bayesian,  # which jobs go on to more epochs is decided in stopping.py
}


def seed_of(search: SearchHistory) -> int:
    """Return a seed of its own for each trial, the same whenever that trial is asked for."""
    return (search.seed * 1_000_003 + len(search.trials)) % SEEDS


def sampled(search: SearchHistory, sampler: str) -> Mapping[str, str]:
    """Return what a sampler of Optuna proposes, which is loaded by the first that asks.

    It takes a tenth of a server's start, and few servers tune.
    """
    sampling = importlib.import_module("cloche.services.sagemaker.tuning.samplers")
    proposed: Mapping[str, str] = sampling.ask(search, sampler, seed_of(search))
    return proposed
