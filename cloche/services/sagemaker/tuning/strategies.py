"""Which hyperparameters to try next. One function a strategy; add yours to STRATEGIES.

A strategy keeps nothing between calls: it sees all trials so far, those that run included, and a
seed. So a restarted server goes on with the same search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from cloche.services.sagemaker.tuning.space import SearchSpace, grid

SEEDS = 2**32
STARTUP = 5  # Bayesian: so many random trials before the model has a say


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
class Search:
    """All that a strategy may look at. `parents` are trials of earlier tuning jobs (warm start)."""

    space: SearchSpace
    minimize: bool
    seed: int
    trials: Sequence[Trial]
    parents: Sequence[Trial] = ()


Strategy = Callable[[Search], Mapping[str, str] | None]

STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def bayesian(search: Search) -> Mapping[str, str] | None:
    """Tree-structured Parzen estimator over all trials; those that run repel new ones."""
    sampler = TPESampler(
        seed=seed_of(search), n_startup_trials=STARTUP, multivariate=True, constant_liar=True
    )
    return ask(search, sampler)


def random(search: Search) -> Mapping[str, str] | None:
    """Independent draws from the ranges."""
    return ask(search, RandomSampler(seed=seed_of(search)))


def exhaustive(search: Search) -> Mapping[str, str] | None:
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


def seed_of(search: Search) -> int:
    """Return a seed of its own for each trial, the same whenever that trial is asked for."""
    return (search.seed * 1_000_003 + len(search.trials)) % SEEDS


def ask(search: Search, sampler: BaseSampler) -> Mapping[str, str]:
    """Return what `sampler` proposes after all trials, as text."""
    study = optuna.create_study(
        sampler=sampler, direction="minimize" if search.minimize else "maximize"
    )
    distributions = search.space.distributions()
    for trial in (*search.parents, *search.trials):
        sampled = search.space.to_sampled(trial.parameters)
        if sampled is None:
            continue
        state = STATES[trial.state]
        if trial.objective is None and state in (TrialState.COMPLETE, TrialState.PRUNED):
            state = TrialState.FAIL  # it ended without a word on the objective
        study.add_trial(
            create_trial(
                state=state,
                params=sampled,
                distributions=distributions,
                value=trial.objective if state is TrialState.COMPLETE else None,
                intermediate_values=dict(enumerate(trial.curve, 1)),
            )
        )
    return search.space.to_text(study.ask(distributions).params)
