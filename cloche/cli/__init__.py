"""The `cloche` command. It talks HTTP to the server like any client."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from cloche import tour as tours
from cloche.cli import data, image
from cloche.cli import down as downs
from cloche.cli import run as runs
from cloche.cli import status as statuses
from cloche.cli import up as ups
from cloche.cli.options import HomeOption, home_of
from cloche.cli.output import Stop, err
from cloche.core import home as homes

app = typer.Typer(
    name="cloche",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "SageMaker on your own machine: training jobs, endpoints, S3, logs and metrics behind "
        "AWS's APIs. No AWS account, no Docker.\n\n"
        "Start with `cloche up`, then `cloche run -- python your_script.py`; or see it all with "
        "`cloche tour`."
    ),
)

app.add_typer(image.app, name="image")
app.add_typer(data.app, name="data")

As = Annotated[
    Literal["role", "root"],
    typer.Option(
        "--as",
        help="Whose keys: a session of SageMaker's execution role, or the root user's.",
    ),
]


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"cloche {version('cloche')}")
        raise typer.Exit


@app.callback()
def cloche(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options of `cloche` itself."""


@app.command()
def up(
    home: HomeOption = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. 0.0.0.0: on every network. [default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65534,
            metavar="PORT",
            help="The port of the AWS APIs; the HTTPS proxy takes the next one. [default: 4599]",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What runs the jobs. There is: local. [default: local]",
            show_default=False,
        ),
    ] = None,
    allow_egress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="A network, besides the internet, that jobs and endpoints may reach through the "
            "proxy: 192.168.1.0/24. May be given several times; `none` takes them back.",
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which this server may be asked for its own pages (/_cloche/…), besides "
            "IP addresses and localhost. May be given several times; `none` takes them back.",
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it serves; it goes on by itself.")
    ] = False,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The AWS region to be. [default: us-east-1]",
            show_default=False,
        ),
    ] = None,
    account_id: Annotated[
        str | None,
        typer.Option(
            metavar="DIGITS",
            help="The account's 12 digits, when a home folder is made. [default: drawn]",
            show_default=False,
        ),
    ] = None,
    root_access_key_id: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The root user's key, for tests. [default: drawn]"),
    ] = None,
    root_secret_access_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The root user's secret, for tests. [default: drawn]"),
    ] = None,
) -> None:
    """Start the platform and print its address once it answers.

    Everything is kept in the home folder: the next `cloche up` goes on where this one ended, even
    after a crash, with the same options where none are given. Ctrl-C or `cloche down` stops it.
    """
    ups.up(
        ups.Wish(
            home=home_of(home),
            host=host,
            port=port,
            engine=engine,
            allow_egress=tuple(allow_egress) if allow_egress else None,
            host_names=tuple(name.lower() for name in host_name) if host_name else None,
            region=region,
            account_id=account_id,
            root_access_key_id=root_access_key_id,
            root_secret_access_key=root_secret_access_key,
        ),
        detach=detach,
    )


@app.command()
def down(
    home: HomeOption = None,
    stop_jobs: Annotated[
        bool,
        typer.Option(
            "--stop-jobs",
            help="Stop running training jobs first, as StopTrainingJob does, and the endpoints' "
            "processes (the endpoints stay, and serve again after `cloche up`).",
        ),
    ] = False,
) -> None:
    """Stop the server. Nothing is lost, and what runs goes on.

    Training jobs and the endpoints' processes go on by themselves; the next `cloche up` picks
    them up, finishes the jobs and serves the endpoints. With --stop-jobs they are stopped.
    """
    downs.down(home_of(home), stop_jobs=stop_jobs)


@app.command()
def status(home: HomeOption = None) -> None:
    """Show whether the platform is up, what runs on it, and what it has left.

    Exit code: 0 it is up, 3 it is not.
    """
    statuses.status(home_of(home))


@app.command()
def fsck(home: HomeOption = None) -> None:
    """Read everything that S3 keeps, and say what is damaged or missing.

    The server may be up or down. Nothing is changed. Exit code: 0 all is as it was put, 1 it is
    not.
    """
    # A program of its own: it reads the records, which no command does.
    program = (sys.executable, "-m", "cloche.fsck", str(home_of(home).path))
    raise typer.Exit(subprocess.run(program, check=False).returncode)


@app.command()
def env(
    home: HomeOption = None,
    identity: As = "role",
    unset: Annotated[
        bool,
        typer.Option("--unset", help="Print what gives the shell back what it had before."),
    ] = False,
) -> None:
    """Print what sets a shell up for boto3, the SageMaker SDK and the AWS CLI.

    Use it so: eval "$(cloche env)". The keys of the role last 12 hours. If Cloche is not up, what
    is printed keeps the shell away from AWS all the same, and ends with `false`.
    """
    if unset:
        runs.unset()
    else:
        runs.env(home_of(home), identity)


# What follows the command's name is the command's: `cloche run aws s3 ls --help`.
@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", show_default=False)],
    home: HomeOption = None,
    identity: As = "role",
) -> None:
    """Run a command against the platform: cloche run -- python train.py

    The command sees Cloche instead of AWS; nothing in it has to change. Its exit code is ours.
    """
    runs.run(home_of(home), identity, command)


@app.command()
def tour(
    home: Annotated[
        Path, typer.Option(metavar="DIR", help="The home folder of the tour; it is kept.")
    ] = Path(".tour"),
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An image folder of yours: train, valid, test/CLASS/*."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Download a data set: dogs (1.1 GB, 133 breeds)."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How often training sees every picture.")
    ] = tours.EPOCHS,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65534,
            metavar="PORT",
            help="The port. [default: a free one]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """See it all: data to S3, tuning, training, two endpoints, answers, and a report.

    Takes a few minutes on handwritten digits that come with it.
    """
    raise typer.Exit(tours.main(home=home, data=data, dataset=dataset, epochs=epochs, port=port))


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as end:
        # Typer refused the arguments. A shell evaluates what `cloche env` printed all the same.
        if end.code and sys.argv[1:2] == ["env"] and "--unset" not in sys.argv:
            runs.keep_away(home_of(None))
        raise
    except Stop as stop:
        err.print(str(stop), markup=False)
        sys.exit(stop.code)
    except homes.HomeError as error:
        err.print(str(error), markup=False)
        sys.exit(1)
