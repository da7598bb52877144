"""The `cloche` command. It talks HTTP to the server like any client."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from cloche import tour as tours
from cloche.cli import data, iam, image, root
from cloche.cli import down as downs
from cloche.cli import run as runs
from cloche.cli import status as statuses
from cloche.cli import up as ups
from cloche.cli.grammar import PORT, Command, CommandGroup, choice, number
from cloche.cli.options import HomeOption, home_of
from cloche.cli.output import Stop, err
from cloche.core import home as homes

app = typer.Typer(
    name="cloche",
    cls=CommandGroup,
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
app.add_typer(iam.app, name="iam")
app.add_typer(root.app, name="root")

As = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="admin|root|USER|ROLE",
        help="Whose keys: the administrator role's, the root user's, or those of an IAM user or "
        "role by name. [default: SageMaker's execution role's]",
        show_default=False,
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


@app.command(cls=Command)
def up(
    home: HomeOption = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen on; 0.0.0.0: all of them. [default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            parser=PORT,
            metavar="PORT",
            help="The port of the AWS APIs, 1 to 65534; the HTTPS proxy takes the next one. "
            "[default: 4599]",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What runs jobs; the only one is local. [default: local]",
            show_default=False,
        ),
    ] = None,
    allow_egress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="A private network that jobs and endpoints may reach besides the internet: "
            "192.168.1.0/24. May be repeated; `none` removes those of earlier starts.",
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name under which the server answers under /_cloche/, besides IP addresses "
            "and localhost. May be repeated; `none` removes those of earlier starts.",
        ),
    ] = None,
    public_bucket: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A bucket of the real S3 that everybody may read: reads of it are passed on, "
            "without a signature, where Cloche has no bucket of that name. May be repeated; `none` "
            "removes those of earlier starts.",
        ),
    ] = None,
    pass_foreign_keys: Annotated[
        bool | None,
        typer.Option(
            "--pass-foreign-keys/--no-pass-foreign-keys",
            help="Pass reads of S3 that keys of other accounts signed on to the real S3, as they "
            "were signed. [default: no-pass-foreign-keys]",
            show_default=False,
        ),
    ] = None,
    gpu_instances: Annotated[
        str | None,
        typer.Option(
            parser=choice("cpu", "refuse"),
            metavar="cpu|refuse",
            help="Instance types with GPUs: run on this machine's CPUs, or refuse. [default: cpu]",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Run in the background: return once the server answers."),
    ] = False,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The AWS region to present. [default: us-east-1]",
            show_default=False,
        ),
    ] = None,
    account_id: Annotated[
        str | None,
        typer.Option(
            metavar="DIGITS",
            help="The 12-digit account ID of a new home folder. [default: generated]",
            show_default=False,
        ),
    ] = None,
    root_access_key_id: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="The root user's access key ID, for tests. [default: generated]"
        ),
    ] = None,
    root_secret_access_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="The root user's secret access key, for tests. [default: generated]"
        ),
    ] = None,
) -> None:
    """Start the platform and print its address once it answers.

    Everything is kept in the home folder: the next `cloche up` continues where this one ended, even
    after a crash, and with the same options unless others are given. Ctrl-C or `cloche down` stops
    it.
    """
    ups.up(
        ups.Options(
            home=home_of(home),
            host=host,
            port=port,
            engine=engine,
            allow_egress=tuple(allow_egress) if allow_egress else None,
            host_names=tuple(name.lower() for name in host_name) if host_name else None,
            public_buckets=tuple(public_bucket) if public_bucket else None,
            pass_foreign_keys=pass_foreign_keys,
            gpu_instances=gpu_instances,
            region=region,
            account_id=account_id,
            root_access_key_id=root_access_key_id,
            root_secret_access_key=root_secret_access_key,
        ),
        detach=detach,
    )


@app.command(cls=Command)
def down(
    home: HomeOption = None,
    stop_jobs: Annotated[
        bool,
        typer.Option(
            "--stop-jobs",
            help="Stop running training jobs first, as StopTrainingJob does, and the processes of "
            "endpoints (the endpoints remain, and serve again after the next `cloche up`).",
        ),
    ] = False,
) -> None:
    """Stop the server. Jobs and endpoints' processes keep running.

    The next `cloche up` finds them: it completes the jobs and serves the endpoints. With
    --stop-jobs they are stopped first.
    """
    downs.down(home_of(home), stop_jobs=stop_jobs)


@app.command(cls=Command)
def status(home: HomeOption = None) -> None:
    """Show whether the platform is up, what runs on it, and how much capacity is used.

    Exit code: 0 up, 3 not up.
    """
    statuses.status(home_of(home))


@app.command(cls=Command)
def fsck(home: HomeOption = None) -> None:
    """Verify all objects in S3 and list those that are damaged or missing.

    The server may be up or down. Nothing is changed. Exit code: 0 all are intact, 1 some are not.
    """
    # A program of its own: it reads the records, which no command does.
    program = (sys.executable, "-m", "cloche.fsck", str(home_of(home).path))
    raise typer.Exit(subprocess.run(program, check=False).returncode)


@app.command(cls=Command)
def env(
    home: HomeOption = None,
    name: As = "role",
    unset: Annotated[
        bool,
        typer.Option("--unset", help="Print what restores the shell's earlier variables."),
    ] = False,
) -> None:
    """Print the environment variables for boto3, the SageMaker SDK and the AWS CLI.

    Usage: eval "$(cloche env)". The role's session lasts 12 hours. If Cloche is not up, the
    variables lead to a closed port, never to the real AWS, and the output ends with `false`.
    """
    if unset:
        runs.unset()
    else:
        runs.env(home_of(home), name)


# What follows the command's name is the command's: `cloche run aws s3 ls --help`.
@app.command(
    cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", show_default=False)],
    home: HomeOption = None,
    name: As = "role",
) -> None:
    """Run a command against the platform: cloche run -- python train.py

    The command sees Cloche instead of AWS, through environment variables only: it is the `python`
    or `aws` of your shell. Its exit code is returned.
    """
    runs.run(home_of(home), name, command)


@app.command(cls=Command)
def tour(
    home: Annotated[
        Path, typer.Option(metavar="DIR", help="The tour's home folder, which is kept.")
    ] = Path(".tour"),
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your own image folder: {train,valid,test}/CLASS/*."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Download a data set: dogs (1.1 GB, 133 breeds)."),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option(
            parser=number(1), metavar="N", help="How often training goes over all pictures."
        ),
    ] = tours.EPOCHS,
    port: Annotated[
        int | None,
        typer.Option(
            parser=PORT,
            metavar="PORT",
            help="The platform's port, 1 to 65534. [default: a free one]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show it all: upload, tuning job, training jobs, two endpoints, predictions, and a report.

    Takes a few minutes on the handwritten digits of scikit-learn.
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
