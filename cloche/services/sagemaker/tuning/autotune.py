"""Autotune: what a tuning job leaves open is chosen here.

AWS chooses by experience it does not publish; these are plain rules, told in Describe's answer:
around each hint a range of 4 times (integers) or 10 times (others) either way, searched
logarithmically; early stopping; an end when nothing improves any more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloche.core.errors import AwsError
from cloche.services.sagemaker.names import Request

JOBS = 30  # MaxNumberOfTrainingJobs
AROUND_INTEGER, AROUND = 4, 10


def autotuned(config: Request) -> Request:
    """Return HyperParameterTuningJobConfig with ranges, limits and ends filled in.

    An AwsError says which hint is not a positive number.
    """
    ranges = dict(config.get("ParameterRanges") or {})
    integers = list(ranges.get("IntegerParameterRanges") or ())
    continuous = list(ranges.get("ContinuousParameterRanges") or ())
    for hint in ranges.get("AutoParameters") or ():
        kind, entry = around(hint)
        (integers if kind == "Integer" else continuous).append(entry)
    ranges |= {"IntegerParameterRanges": integers, "ContinuousParameterRanges": continuous}
    criteria: Mapping[str, Any] = config.get("TuningJobCompletionCriteria") or {}
    strategy = config["Strategy"]
    limits = {} if strategy == "Grid" else {"MaxNumberOfTrainingJobs": JOBS}
    return {
        "TrainingJobEarlyStoppingType": "Off" if strategy == "Hyperband" else "Auto",
        **config,
        "ParameterRanges": ranges,
        "ResourceLimits": {**limits, **config["ResourceLimits"]},
        "TuningJobCompletionCriteria": {
            "ConvergenceDetected": {"CompleteOnConvergence": "Enabled"},
            **criteria,
        },
    }


def around(hint: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the kind and the range for one of AutoParameters (`Name`, `ValueHint`)."""
    name, text = hint["Name"], hint["ValueHint"]
    try:
        value = json.loads(json.loads(text) if text.startswith('"') else text)
    except (ValueError, TypeError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise AwsError(
            "ValidationException",
            f"The hyperparameter {name} is not eligible for Autotune: its ValueHint {text!r} is "
            "not a positive number. Give it a range or a static value.",
        )
    if isinstance(value, int):
        low, high = str(max(1, value // AROUND_INTEGER)), str(value * AROUND_INTEGER)
        kind = "Integer"
    else:
        low, high = repr(value / AROUND), repr(value * AROUND)
        kind = "Continuous"
    return kind, {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": "Logarithmic"}
