"""What a sandbox leaves as verdicts of rules is read as anything that a sandbox leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.services.sagemaker.training.debugger.rule_gang import VERDICTS, read
from cloche.services.sagemaker.training.debugger.rules import DETAILS_LIMIT

RULES: dict[str, Any] = {"one": {}, "two": {}}
UNREADABLE = "The tensors could not be read, or not in time and memory."
GOOD = json.dumps({"one": {"status": "NoIssuesFound", "details": ""}})


def test_verdicts_are_by_rule(tmp_path: Path) -> None:
    long = {"status": "IssuesFound", "details": "x" * 5000}
    (tmp_path / VERDICTS).write_text(json.dumps({"one": long, "other": long}))
    said = read(tmp_path, RULES)
    assert said["one"].status == "IssuesFound" and len(said["one"].details) == DETAILS_LIMIT
    assert (said["two"].status, said["two"].details) == ("Error", UNREADABLE)
    assert list(said) == ["one", "two"]


@pytest.mark.parametrize(
    "left",
    [
        "",
        "[]",
        "no json",
        "[" * 100_000,
        json.dumps({"one": "NoIssuesFound"}),
        json.dumps({"one": {"status": "Passed", "details": ""}}),
        json.dumps({"one": {"status": ["NoIssuesFound"], "details": ""}}),
        json.dumps({"one": {"status": "NoIssuesFound", "details": 7}}),
        " " * (2 << 20) + GOOD,
    ],
)
def test_what_is_no_verdict_is_an_error(tmp_path: Path, left: str) -> None:
    (tmp_path / VERDICTS).write_text(left)
    assert {each.status for each in read(tmp_path, RULES).values()} == {"Error"}


def test_text_that_no_answer_can_have(tmp_path: Path) -> None:
    odd = '{"one": {"status": "IssuesFound", "details": "\\ud800"}}'
    (tmp_path / VERDICTS).write_text(odd)
    assert read(tmp_path, RULES)["one"].details == "?"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_a_file_is_read(tmp_path: Path, kind: str) -> None:
    """Control: the same verdicts in a file are taken."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.write_text(GOOD)
    (run / VERDICTS).write_text(GOOD)
    assert read(run, RULES)["one"].status == "NoIssuesFound"
    (run / VERDICTS).unlink()
    if kind == "link":
        (run / VERDICTS).symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(run / VERDICTS)
    else:
        (run / VERDICTS).mkdir()
    assert read(run, RULES)["one"].status == "Error"
