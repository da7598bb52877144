"""When a running training job of a tuning job is not worth its time.

Epoch n of a job is the n-th value of the objective metric in its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from cloche.services.sagemaker.tuning.strategies import Trial

ETA = 3  # Hyperband: one in so many goes on at each rung


def stops_early(trial: Trial, trials: Sequence[Trial], *, minimize: bool) -> bool:
    """Return whether `TrainingJobEarlyStoppingType` `Auto` stops a running trial now.

    AWS's rule ("Stop Training Jobs Early", SageMaker Developer Guide): at the epoch that the
    trial has reached, its value is worse than the median of the running averages up to that epoch
    of all previous training jobs. Previous: those created before it that have got that far.
    """
    epoch = len(trial.curve)
    if epoch == 0:
        return False
    averages = [
        fmean(other.curve[:epoch])
        for other in trials
        if other.number < trial.number and other.state != "failed" and len(other.curve) >= epoch
    ]
    if not averages:
        return False
    bar = median(averages)
    return trial.curve[-1] > bar if minimize else trial.curve[-1] < bar


def hyperband_stops(
    trial: Trial,
    trials: Sequence[Trial],
    *,
    minimize: bool,
    min_resource: int,
    max_resource: int,
) -> bool:
    """Return whether Hyperband ends a running trial at the epoch it has reached.

    Asynchronous successive halving (Li et al., 2020): trials are dealt to brackets in turn; at
    each rung of its bracket a trial goes on if it is among the best third of those that came so
    far. At `max_resource` epochs a trial is always done (HyperbandStrategyConfig).
    """
    epoch = len(trial.curve)
    if epoch >= max_resource:
        return True
    rungs = rungs_of(trial.number, min_resource, max_resource)
    if epoch not in rungs:
        return False
    peers = [
        other.curve[epoch - 1]
        for other in trials
        if len(other.curve) >= epoch
        and other.number != trial.number
        and rungs_of(other.number, min_resource, max_resource) == rungs
    ]
    value = trial.curve[-1]
    better = sum(peer < value if minimize else peer > value for peer in peers)
    return better >= max(1, (len(peers) + 1) // ETA)


def rungs_of(number: int, min_resource: int, max_resource: int) -> tuple[int, ...]:
    """Return the epochs at which the bracket of this trial decides, the first one first.

    There are as many brackets as rungs: bracket b leaves out the first b rungs.
    """
    rungs = []
    epoch = min_resource
    while epoch < max_resource:
        rungs.append(epoch)
        epoch *= ETA
    return tuple(rungs[number % len(rungs) :]) if rungs else ()
