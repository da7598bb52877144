"""What the reader may do next, or after a failure; how times and steps are shown."""

from io import StringIO
from pathlib import Path

import pytest
from made_up_tour import facts
from rich.console import Console

from cloche import tour
from cloche.tour import hints
from cloche.tour.errors import TourError
from cloche.tour.hints import next_steps, where_to_look
from cloche.tour.journal import Journal, duration
from cloche.tour.plan import TourPlan, TourSize


def plan(home: str = "/data/my home", *, stays_up: bool = False) -> TourPlan:
    return TourPlan(
        home=home,
        data=None,
        data_name="handwritten digits",
        prefix="digits",
        source="/x",
        size=TourSize(1, trials=2),
        started=0.0,
        stays_up=stays_up,
    )


def test_a_plan_survives_the_way_to_the_other_process() -> None:
    assert TourPlan.from_json(plan().to_json()) == plan()


def test_commands_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "tool", lambda name, only_ours=False: name)
    commands = dict(next_steps(plan(), "dog-breeds-1", facts()))
    assert commands["Start the platform again, with all of this"] == (
        "cloche up --detach --home '/data/my home'"
    )
    assert commands["Look at it"] == (
        "cloche run --home '/data/my home' -- "
        "aws sagemaker describe-training-job --training-job-name job-4"
    )
    assert commands["Read its log"] == (
        "cloche run --as admin --home '/data/my home' -- aws logs filter-log-events "
        "--log-group-name /aws/sagemaker/TrainingJobs --log-stream-name-prefix job-4 "
        "--query 'events[].[message]' --output text"
    )
    assert commands["Look at the tuning job"].endswith("--hyper-parameter-tuning-job-name search")


def test_commands_that_are_not_on_the_path_are_called_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "with space" / "bin", tmp_path / "theirs"
    for command in (ours / "cloche", ours / "python", theirs / "python"):
        command.parent.mkdir(parents=True, exist_ok=True)
        command.touch(mode=0o755)
    monkeypatch.setattr(hints.sys, "prefix", str(ours.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(theirs))
    assert hints.tool("cloche") == "'with space/bin/cloche'"
    assert hints.tool("python") == "python"
    assert hints.tool("python", only_ours=True) == "'with space/bin/python'"
    assert hints.tool("aws") == "aws"  # nowhere: the shell says so
    said = hints.where_it_is("/data/my home")
    assert "'with space/bin/cloche' up --detach --home '/data/my home'" in said
    assert "a home folder of its own: /data/my home" in said
    monkeypatch.setenv("PATH", str(ours))
    assert hints.tool("python", only_ours=True) == "python"


def test_a_platform_that_stays_up_is_not_started_again() -> None:
    steps = next_steps(plan(stays_up=True), "b", facts())
    assert not any("cloche up" in command for _, command in steps)


def test_after_a_failure_only_logs_that_exist_are_named() -> None:
    text = str(where_to_look(plan(), None, None))
    assert "server.log" in text
    assert "aws logs" not in text
    text = str(where_to_look(plan(), "job-1", None))
    assert "/aws/sagemaker/TrainingJobs --log-stream-name-prefix job-1" in text
    assert "Endpoints" not in text
    assert "/aws/sagemaker/Endpoints/ep-1 " in str(where_to_look(plan(), "job-1", "ep-1"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (205, "3 min 25 s")],
)
def test_times_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_steps_are_numbered_and_a_failed_one_stays_the_last() -> None:
    output = StringIO()
    journal = Journal(Console(file=output, width=60))
    with journal.step("First") as step:
        step.facts.append("s3://bucket/[x]/")
    with pytest.raises(ValueError, match="no"), journal.step("Second"):
        raise ValueError("no")
    assert [(step.number, step.title) for step in journal.steps] == [(1, "First"), (2, "Second")]
    assert "s3://bucket/[x]/" in output.getvalue()


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"data": Path("x"), "dataset": "dogs"}, "Give --data or --dataset, not both."),
        ({"dataset": "cats"}, "There is no data set 'cats'; there is: dogs."),
        ({"epochs": 0}, "--epochs must be at least 1, not 0."),
        ({"data": Path("/no/such/folder")}, "There is nothing at /no/such/folder"),
    ],
)
def test_wrong_arguments_end_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: dict[str, object], text: str
) -> None:
    assert tour.main(home=tmp_path / "home", **asked) == 2  # type: ignore[arg-type]
    assert text in capsys.readouterr().out.replace("\n", " ")
    assert not (tmp_path / "home").exists()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "NEEDED", (("boto3", "surely_not_installed"),))
    with pytest.raises(TourError, match=r"not installed: surely_not_installed.*cloche\[tour"):
        tour.check_asked(None, None, 1)
