import math
from statistics import median

import optuna
import pytest

from cloche.services.sagemaker.tuning.space import SearchSpace
from cloche.services.sagemaker.tuning.strategies import STRATEGIES, SearchHistory, Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = SearchSpace.parse(
    {
        "ContinuousParameterRanges": [
            {"Name": "x", "MinValue": "-5", "MaxValue": "5"},
            {"Name": "lr", "MinValue": "0.0001", "MaxValue": "1"},
        ],
        "CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b"]}],
    }
)


def known(x, lr, c):
    """A bowl whose lowest point is 0 at x = 2, lr = 0.01, c = "b"."""
    return (x - 2) ** 2 + math.log10(lr / 0.01) ** 2 + (c == "a")


def run(strategy, seed, budget, trials=()):
    trials = list(trials)
    while len(trials) < budget:
        chosen = STRATEGIES[strategy](
            SearchHistory(space=SPACE, minimize=True, seed=seed, trials=trials)
        )
        value = known(float(chosen["x"]), float(chosen["lr"]), chosen["c"])
        trials.append(
            Trial(number=len(trials), parameters=chosen, state="completed", objective=value)
        )
    return trials


def best(trials):
    return min(trial.objective for trial in trials)


def optuna_alone(seed, budget):
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(
        lambda t: known(
            t.suggest_float("x", -5, 5),
            t.suggest_float("lr", 1e-4, 1, log=True),
            t.suggest_categorical("c", ["a", "b"]),
        ),
        n_trials=budget,
    )
    return study.best_value


def test_bayesian_finds_what_optuna_alone_finds():
    seeds = range(7)
    ours = median(best(run("Bayesian", seed, 30)) for seed in seeds)
    alone = median(optuna_alone(seed, 30) for seed in seeds)
    blind = median(best(run("Random", seed, 30)) for seed in seeds)
    assert ours < blind
    assert ours <= max(2 * alone, 0.3)


@pytest.mark.parametrize("strategy", ["Bayesian", "Random"])
def test_a_search_that_starts_again_in_the_middle_goes_on_as_before(strategy):
    whole = run(strategy, 3, 12)
    assert run(strategy, 3, 12, whole[:7]) == whole
    assert run(strategy, 4, 12) != whole


def test_running_failed_and_stopped_trials_are_taken_into_account_without_harm():
    trials = run("Bayesian", 1, 8)
    trials[3] = Trial(number=3, parameters=trials[3].parameters, state="failed")
    trials[4] = Trial(
        number=4,
        parameters=trials[4].parameters,
        state="stopped",
        objective=3.0,
        curve=(4.0, 3.0),
    )
    trials[5] = Trial(number=5, parameters=trials[5].parameters, state="running")
    search = SearchHistory(space=SPACE, minimize=True, seed=1, trials=trials)
    chosen = STRATEGIES["Bayesian"](search)
    assert chosen is not None and chosen != trials[5].parameters


def test_a_parent_outside_the_new_ranges_is_left_out():
    parent = Trial(
        number=0, parameters={"x": "99", "lr": "1", "c": "a"}, state="completed", objective=0.0
    )
    search = SearchHistory(space=SPACE, minimize=True, seed=1, trials=(), parents=(parent,))
    alone = SearchHistory(space=SPACE, minimize=True, seed=1, trials=())
    assert STRATEGIES["Bayesian"](search) == STRATEGIES["Bayesian"](alone)


def test_grid_tries_each_combination_once_and_then_ends():
    space = SearchSpace.parse(
        {"CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b", "a"]}]}
    )
    trials = []
    for expected in ("a", "b"):
        search = SearchHistory(space=space, minimize=True, seed=0, trials=trials)
        chosen = STRATEGIES["Grid"](search)
        assert chosen == {"c": expected}
        trials.append(Trial(number=len(trials), parameters=chosen, state="running"))
    assert (
        STRATEGIES["Grid"](SearchHistory(space=space, minimize=True, seed=0, trials=trials)) is None
    )
