"""`cloche data …`: looks at data before it is trained on."""

import subprocess
import sys
from typing import Annotated

import typer

from cloche.cli.grammar import Command, CommandGroup
from cloche.cli.options import HomeOption, home_of

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="Look at data before it is trained on."
)


@app.callback()
def data() -> None:
    """Look at data before it is trained on."""


@app.command(cls=Command)
def check(
    target: Annotated[
        str, typer.Argument(metavar="s3://…|DIR", help="An image folder.", show_default=False)
    ],
    home: HomeOption = None,
) -> None:
    """Find what would spoil a training on an image folder.

    Pictures that are in more than one of train, valid and test (the same file, or the same picture
    saved differently), files that can't be read, classes that are empty, missing or very uneven.

    Exit code: 0 nothing is wrong, 1 something is. Every training job has the same in its log.
    """
    # A program of its own: the other commands start without what it imports.
    program = (sys.executable, "-P", "-m", "cloche.cli.data_check", target, str(home_of(home).path))
    raise typer.Exit(subprocess.run(program, check=False).returncode)
