"""The search, as the terminal shows it while it goes on."""

from dataclasses import replace
from io import StringIO

from made_up_tour import tuning
from rich.console import Console

from cloche.tour.jobs import METRICS
from cloche.tour.tuning import OBJECTIVE, table, trial_of


def shown(*trials: object) -> list[str]:
    output = StringIO()
    Console(file=output, width=80).print(table(trials, 4))  # type: ignore[arg-type]
    return output.getvalue().splitlines()[1:]


def test_a_trial_is_read_from_what_the_sdk_writes() -> None:
    trial = trial_of(
        3,
        {
            "TrainingJobName": "search-003",
            "TrainingJobStatus": "InProgress",
            "TunedHyperParameters": {"learning_rate": "0.0021", "batch_size": '"64"'},
        },
        {
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Training",
            "FinalMetricDataList": [
                {"MetricName": "epoch", "Value": 2.0},
                {"MetricName": "Validation Loss", "Value": 0.75},
            ],
        },
    )
    assert (trial.learning_rate, trial.batch_size, trial.epoch) == (0.0021, 64, 2)
    assert (trial.objective, trial.test_loss) == (0.75, None)


def test_a_trial_that_is_listed_before_its_job_is_there() -> None:
    summary = {
        "TrainingJobName": "search-004",
        "TrainingJobStatus": "InProgress",
        "TunedHyperParameters": {"learning_rate": "0.0021", "batch_size": '"64"'},
    }
    trial = trial_of(4, summary, {})
    assert (trial.status, trial.step, trial.epoch) == ("InProgress", "Starting", 0)


def test_the_table_tells_how_each_trial_stands() -> None:
    first, second, third, fourth = tuning().trials
    going = replace(first, number=5, status="InProgress", step="Training", test_loss=None, epoch=1)
    waiting = replace(going, number=6, step="Pending", epoch=0, objective=None)
    rows = shown(first, second, third, fourth, going, waiting)
    assert rows[0].split() == ["1", "0.00100", "32", "4/4", "1.1000", "1.2000", "completed"]
    assert "stopped early" in rows[2]
    assert "failed" in rows[3]
    assert rows[4].split()[-3:] == ["1.1000", "–", "training"]
    assert "pending" in rows[5]
    assert [row.split()[0] for row in rows if row.rstrip().endswith("completed best")] == ["2"]


def test_the_objective_is_one_of_the_metrics() -> None:
    assert OBJECTIVE in {metric["Name"] for metric in METRICS}
