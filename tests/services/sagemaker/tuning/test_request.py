"""Numbers of tuning requests that are none, and grids that nobody could search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cloche.core.errors import AwsError
from cloche.services.sagemaker.tuning.request import checked_config, epochs_of


@pytest.mark.parametrize(
    ("text", "epochs"),
    [("3", 3), ('"3"', 3), (" 7.0 ", 7), ("1e3", 1000), ("0.5", 0)],
)
def test_epochs_as_the_sdk_and_others_write_them(text: str, epochs: int) -> None:
    assert epochs_of([{"StaticHyperParameters": {"epochs": text}}]) == epochs


@pytest.mark.parametrize(
    "text", ["1e999", "NaN", "Infinity", "[" * 100_000, "{}", "null", "", "9" * 5000, "1_0", "x"]
)
def test_epochs_that_are_no_number_tell_nothing(text: str) -> None:
    assert epochs_of([{"StaticHyperParameters": {"epochs": text}}]) is None
    later = {"StaticHyperParameters": {"epochs": text, "num_epochs": "5"}}
    assert epochs_of([later]) == 5


def grid(categories: int, values: int) -> Mapping[str, Any]:
    """Return the configuration of a search of all combinations."""
    ranges = [
        {"Name": f"c{n}", "Values": [str(v) for v in range(values)]} for n in range(categories)
    ]
    return {
        "Strategy": "Grid",
        "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        "ParameterRanges": {"CategoricalParameterRanges": ranges},
    }


def test_a_grid_has_a_bounded_number_of_combinations() -> None:
    checked = checked_config(grid(4, 10), [{}], several=False)
    assert checked["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 10_000
    with pytest.raises(AwsError) as caught:
        checked_config(grid(30, 30), [{}], several=False)
    assert caught.value.message == (
        "The grid has more than 1000000000000 combinations; Cloche tries 10000 at the most."
    )
