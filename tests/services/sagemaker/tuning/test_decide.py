from dataclasses import replace

import pytest

from cloche.services.sagemaker.tuning.decide import (
    ALL_FAILED,
    NO_SUCCESS,
    SearchLimits,
    Situation,
    TuningPlan,
    decide,
    not_improving,
)
from cloche.services.sagemaker.tuning.strategies import Trial

LOSS = "the metric loss (regular expression: loss=(.*))"
SILENT = (
    "No objective metrics found after running {} training jobs. Please ensure that the custom "
    "algorithm is emitting the objective metric as defined by the regular expression provided."
)
NOTHING = "No line of their logs gave a value of"
RULES = SearchLimits(max_jobs=12, max_parallel=3)


def trial(number, state, objective=None, curve=()):
    return Trial(number=number, parameters={}, state=state, objective=objective, curve=curve)


def at(*trials, rules=RULES, **more):
    numbers = [each.number for each in trials]
    return Situation(
        rules=rules,
        trials=trials,
        minimize=dict.fromkeys(numbers, True),
        groups=dict.fromkeys(numbers, ""),
        **more,
    )


def many(count, state, objective=None, first=1):
    return [trial(n, state, objective) for n in range(first, first + count)]


@pytest.mark.parametrize(
    ("situation", "plan"),
    [
        (at(), TuningPlan(start=3)),
        (at(*many(2, "running")), TuningPlan(start=1)),
        (at(*many(3, "running")), TuningPlan()),
        (at(*many(11, "completed", 1.0), trial(12, "running")), TuningPlan()),
        (at(*many(10, "completed", 1.0), trial(11, "running")), TuningPlan(start=1)),
        (at(*many(12, "completed", 1.0)), TuningPlan(ending="Completed")),
        (at(*many(11, "failed"), trial(12, "stopped", 1.0)), TuningPlan(ending="Completed")),
        (at(*many(4, "failed")), TuningPlan(start=3)),
        (at(*many(5, "failed")), TuningPlan(ending="Failed", reason=NO_SUCCESS)),
        (
            at(*many(5, "failed"), trial(6, "running")),
            TuningPlan(stop=(6,), ending="Failed", reason=NO_SUCCESS),
        ),
        (
            at(*many(2, "failed"), rules=replace(RULES, max_jobs=2)),
            TuningPlan(ending="Failed", reason=ALL_FAILED),
        ),
        (
            at(*many(5, "failed"), silent=dict.fromkeys(range(1, 6), LOSS)),
            TuningPlan(ending="Failed", reason=f"{SILENT.format(5)} {NOTHING} {LOSS}."),
        ),
        (
            at(
                *many(2, "failed"),
                silent={1: LOSS, 2: "the metric b (regular expression: b=(.*))"},
                rules=replace(RULES, max_jobs=2),
            ),
            TuningPlan(
                ending="Failed",
                reason=f"{SILENT.format(2)} {NOTHING} {LOSS}; the metric b (regular expression: "
                "b=(.*)).",
            ),
        ),
        (
            at(*many(5, "failed"), silent={2: LOSS}),
            TuningPlan(
                ending="Failed",
                reason=f"{NO_SUCCESS} 1 of them completed, but no line of their logs gave a value "
                f"of {LOSS}.",
            ),
        ),
        (at(*many(2, "running"), stop_requested=True), TuningPlan(stop=(1, 2), ending="Stopped")),
        (
            at(*many(2, "running"), stop_requested=True, stopping=frozenset({1})),
            TuningPlan(stop=(2,), ending="Stopped"),
        ),
        (
            at(trial(1, "running"), rules=replace(RULES, max_runtime_s=120), age_s=120.0),
            TuningPlan(stop=(1,), ending="Completed"),
        ),
        (
            at(trial(1, "completed", 0.5), trial(2, "running"), rules=replace(RULES, target=0.5)),
            TuningPlan(stop=(2,), ending="Completed"),
        ),
        (at(trial(1, "running", 0.4), rules=replace(RULES, target=0.5)), TuningPlan(start=2)),
        (
            at(*many(4, "completed", 1.0), rules=replace(RULES, not_improving=3)),
            TuningPlan(ending="Completed"),
        ),
        (
            at(*many(3, "completed", 1.0), rules=replace(RULES, not_improving=3)),
            TuningPlan(start=3),
        ),
        (
            at(*many(11, "completed", 1.0), rules=replace(RULES, convergence=True)),
            TuningPlan(ending="Completed", converged=True),
        ),
        (
            at(
                trial(1, "completed", 1.0, (2.0, 1.0)),
                trial(2, "running", 3.0, (3.0,)),
                rules=replace(RULES, early_stopping=True),
            ),
            TuningPlan(stop=(2,), start=2),
        ),
        (
            at(
                trial(1, "completed", 1.0, (2.0, 1.0)),
                trial(2, "running", 3.0, (3.0,)),
                rules=replace(RULES, early_stopping=True),
                stopping=frozenset({2}),
            ),
            TuningPlan(start=2),
        ),
        (
            at(trial(1, "completed", 1.0, (2.0,)), trial(2, "running", 3.0, (3.0,))),
            TuningPlan(start=2),
        ),
    ],
)
def test_decide(situation, plan):
    assert decide(situation) == plan


def test_never_more_at_a_time_than_allowed_whatever_is_seen():
    for running in range(4):
        for done in range(12 - running):
            trials = [*many(done, "completed", 1.0), *many(running, "running", first=done + 1)]
            plan = decide(at(*trials))
            assert running + plan.start <= 3
            assert len(trials) + plan.start <= 12


def test_an_improvement_of_one_percent_or_less_is_none():
    values = (1.0, 0.995, 0.98, 0.99, 0.5)
    trials = [trial(n, "completed", value) for n, value in enumerate(values, 1)]
    counts = [not_improving(at(*trials[:n])) for n in range(1, 6)]
    assert counts == [0, 1, 0, 1, 0]
