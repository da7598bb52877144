"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from cloche.core import home as homes
from cloche.core.config import Home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="The folder that holds everything Cloche keeps. [default: $CLOCHE_HOME or ~/.cloche]",
        show_default=False,
    ),
]


def home_of(path: Path | None) -> Home:
    """Return the home folder that was named, or the default one."""
    return Home(homes.default_path() if path is None else path.expanduser().absolute())
