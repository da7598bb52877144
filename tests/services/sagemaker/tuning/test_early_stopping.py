import pytest

from cloche.services.sagemaker.tuning.early_stopping import hyperband_stops, rungs_of, stops_early
from cloche.services.sagemaker.tuning.strategies import Trial


def trial(number, *curve, state="running"):
    return Trial(number=number, parameters={}, state=state, curve=curve)


EARLIER = [
    trial(0, 4.0, 2.0, 1.0, state="completed"),  # running averages 4, 3, 2.33
    trial(1, 6.0, 4.0, 2.0, state="completed"),  # 6, 5, 4
    trial(2, 8.0, 6.0, state="stopped"),  # 8, 7
    trial(3, 0.1, 0.1, 0.1, state="failed"),
]


@pytest.mark.parametrize(
    ("curve", "stopped"),
    [
        ((), False),
        ((6.0,), False),  # the median of 4, 6, 8 itself is not worse
        ((6.1,), True),
        ((9.0, 5.0), False),  # only the value reached now counts; the median of 3, 5, 7
        ((1.0, 5.1), True),
        ((9.0, 9.0, 3.1), False),  # two jobs got so far: the median of 2.33, 4
        ((9.0, 9.0, 3.2), True),
        ((9.0, 9.0, 9.0, 9.0), False),  # none got so far
    ],
)
def test_the_published_rule_on_recorded_curves(curve, stopped):
    current = trial(4, *curve)
    assert stops_early(current, [*EARLIER, current], minimize=True) is stopped


def test_maximizing_turns_the_rule_round():
    earlier = [trial(0, 0.5, 0.7, state="completed")]
    assert stops_early(trial(1, 0.4), earlier, minimize=False)
    assert not stops_early(trial(1, 0.5), earlier, minimize=False)
    assert not stops_early(trial(1, 0.4, 0.6), earlier, minimize=False)
    assert stops_early(trial(1, 0.4, 0.59), earlier, minimize=False)


def test_later_trials_say_nothing_about_an_earlier_one():
    assert not stops_early(trial(0, 9.0), [trial(1, 1.0), trial(2, 1.0)], minimize=True)


def test_hyperband_keeps_the_best_third_at_each_rung():
    assert rungs_of(0, 1, 27) == (1, 3, 9)
    assert rungs_of(1, 1, 27) == (3, 9)
    assert rungs_of(3, 1, 27) == (1, 3, 9)
    peers = [trial(n * 3, value) for n, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0))]

    def stops(current):
        return hyperband_stops(current, peers, minimize=True, min_resource=1, max_resource=27)

    assert not stops(trial(15, 0.5))
    assert not stops(trial(15, 1.5))  # second of six: the best third
    assert stops(trial(15, 2.5))
    assert not stops(trial(16, 2.5))  # another bracket decides at epoch 3
    assert not stops(trial(15, 2.5, 2.5))  # between two rungs
    assert stops(trial(15, *[0.1] * 27))  # max_resource
