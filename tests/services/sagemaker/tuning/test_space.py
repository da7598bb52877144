import pytest

from cloche.core.errors import AwsError
from cloche.services.sagemaker.tuning.space import SearchSpace, grid

RANGES = {
    "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "8"}],
    "ContinuousParameterRanges": [
        {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Auto"},
        {
            "Name": "momentum",
            "MinValue": "0.5",
            "MaxValue": "0.999",
            "ScalingType": "ReverseLogarithmic",
        },
    ],
    "CategoricalParameterRanges": [{"Name": "batch", "Values": ['"32"', '"64"']}],
}


def test_auto_is_logarithmic_for_a_wide_range_and_linear_for_a_narrow_one():
    space = SearchSpace.parse(RANGES)
    scaling = {each.name: each.scaling for each in space.ranges}
    assert scaling == {
        "depth": "Linear",
        "lr": "Logarithmic",
        "momentum": "ReverseLogarithmic",
        "batch": "Linear",
    }


def test_text_and_sampled_values_agree_both_ways():
    space = SearchSpace.parse(RANGES)
    texts = {"depth": "3", "lr": "0.01", "momentum": "0.9", "batch": '"64"'}
    sampled = space.to_sampled(texts)
    assert sampled is not None
    assert sampled["momentum"] == pytest.approx(0.1)
    back = space.to_text(sampled)
    assert back | {"momentum": "0.9"} == texts
    assert float(back["momentum"]) == pytest.approx(0.9)


@pytest.mark.parametrize("outside", [{"depth": "9"}, {"batch": '"16"'}, {"lr": "1.0"}])
def test_values_outside_the_ranges_are_told(outside):
    texts = {"depth": "3", "lr": "0.01", "momentum": "0.9", "batch": '"64"'} | outside
    assert SearchSpace.parse(RANGES).to_sampled(texts) is None


def entry(low, high, scaling="Auto"):
    return [{"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scaling}]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            {"ContinuousParameterRanges": entry("0", "1", "Logarithmic")},
            "Logarithmic scaling works only for ranges that have only values greater than 0; "
            "x (Continuous) ranges from 0 to 1.",
        ),
        (
            {"IntegerParameterRanges": entry("1", "8", "ReverseLogarithmic")},
            "ReverseLogarithmic scaling works only for continuous ranges that are entirely within "
            "the range 0<=x<1.0; x (Integer) ranges from 1 to 8.",
        ),
        (
            {"IntegerParameterRanges": entry("8", "1")},
            "The range of x has MinValue 8 and MaxValue 1: the first must not exceed the second.",
        ),
        (
            {"IntegerParameterRanges": entry("1.5", "8")},
            "'1.5' in the range of x is not a value of type Integer.",
        ),
        (
            {"ContinuousParameterRanges": entry("nan", "8")},
            "'nan' in the range of x is not a value of type Continuous.",
        ),
        (
            {
                "ContinuousParameterRanges": entry("1", "8"),
                "CategoricalParameterRanges": [{"Name": "x", "Values": ["a"]}],
            },
            "The hyperparameters ['x'] are named in more than one range.",
        ),
    ],
)
def test_ranges_that_make_no_sense_are_refused(ranges, message):
    with pytest.raises(AwsError) as refusal:
        SearchSpace.parse(ranges)
    assert (refusal.value.code, refusal.value.message) == ("ValidationException", message)


def test_grid_is_every_combination():
    space = SearchSpace.parse(
        {
            "CategoricalParameterRanges": [
                {"Name": "a", "Values": ["1", "2"]},
                {"Name": "b", "Values": ["x", "y"]},
            ]
        }
    )
    assert [(c["a"], c["b"]) for c in grid(space)] == [
        ("1", "x"),
        ("1", "y"),
        ("2", "x"),
        ("2", "y"),
    ]
