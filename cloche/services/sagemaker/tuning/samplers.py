"""Optuna: the samplers that strategies propose with. Loaded when the first of them does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from cloche.services.sagemaker.tuning.space import Range
from cloche.services.sagemaker.tuning.strategies import SearchHistory

STARTUP = 5  # so many random trials before the model has a say
SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "parzen": lambda seed: TPESampler(
        seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True
    ),
    "random": lambda seed: RandomSampler(seed=seed),
}

STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def distribution(of: Range) -> BaseDistribution:
    """Return what Optuna samples from."""
    log = of.scaling != "Linear"
    if of.kind == "Categorical":
        return CategoricalDistribution(of.values)
    if of.kind == "Integer":
        return IntDistribution(int(of.low), int(of.high), log=log)
    if of.scaling == "ReverseLogarithmic":
        return FloatDistribution(1 - of.high, 1 - of.low, log=True)
    return FloatDistribution(of.low, of.high, log=log)


def ask(search: SearchHistory, sampler: str, seed: int) -> Mapping[str, str]:
    """Return what a sampler proposes after all trials, as text."""
    study = optuna.create_study(
        sampler=SAMPLERS[sampler](seed), direction="minimize" if search.minimize else "maximize"
    )
    distributions = {each.name: distribution(each) for each in search.space.ranges}
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
