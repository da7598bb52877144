"""What the command line says of its arguments: in its own words, whatever Typer's version."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cloche.cli import app
from cloche.cli.grammar import Command, CommandGroup


def invoke(*arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed, as one line without frames."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    text = " ".join(result.output.replace("│", " ").split())
    return result.exit_code, text


def every_command(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield names, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, *names, name)


COMMANDS = list(every_command(get_command(app)))


@pytest.mark.parametrize("names", [names for names, _ in COMMANDS], ids=" ".join)
def test_flags_are_shown_without_a_value(names: tuple[str, ...]) -> None:
    code, text = invoke(*names, "--help")
    assert code == 0
    assert "--help -h Show this message and exit." in text
    for type_of_python in ("bool", "BOOLEAN", "<int>", "INTEGER", "<path>"):
        assert type_of_python not in text


def test_all_commands_speak_so() -> None:
    assert len(COMMANDS) > 12
    for names, command in COMMANDS:
        assert isinstance(command, CommandGroup if hasattr(command, "commands") else Command), names


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("image add", "Missing: NAME, --repository REPOSITORY, --package PACKAGE"),
        ("image add mine --package x", "Missing: --repository REPOSITORY "),
        ("image add --repository r mine", "Missing: --package PACKAGE "),
        ("image build", "Missing: NAME "),
        ("run", "Missing: COMMAND "),
        ("data check", "Missing: s3://…|DIR "),
        (
            "up --port abc",
            "Invalid value for '--port': 'abc' is not a whole number from 1 to 65534.",
        ),
        ("up --port 65535", "'65535' is not a whole number from 1 to 65534."),
        ("tour --port 0", "'0' is not a whole number from 1 to 65534."),
        (
            "tour --epochs 0",
            "Invalid value for '--epochs': '0' is not a whole number of at least 1.",
        ),
        ("tour --epochs 1.5", "'1.5' is not a whole number of at least 1."),
        (
            "up --gpu-instances me",
            "Invalid value for '--gpu-instances': 'me' is not one of: cpu, refuse.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_full(arguments: str, text: str) -> None:
    code, said = invoke(*arguments.split())
    assert code == 2
    assert text in said, said
