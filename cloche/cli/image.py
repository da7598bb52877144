"""`cloche image`: what stands behind framework images. It needs no server: it works on the home."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cloche.cli.grammar import Command, CommandGroup
from cloche.cli.options import HomeOption, home_of
from cloche.cli.output import Stop, err, out, size
from cloche.core import home as homes
from cloche.core.beneath import disk_used
from cloche.core.config import Home
from cloche.environments import added, background
from cloche.environments.ready import Ready, first, ready
from cloche.environments.table import Framework, is_tool

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Show, extend and build the environments that framework images stand for.",
)
T = TypeVar("T")
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@app.command("list", cls=Command)
def show(home: HomeOption = None) -> None:
    """List the environments: which images they stand for, and whether they are ready."""
    place = home_of(home)
    known = read(lambda: added.frameworks(place))
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("images", no_wrap=True)
    table.add_column("state, packages", overflow="fold")
    taken: dict[str, str] = {}
    for framework in known:
        found = ready(framework, place)
        images = [r + (f" (now: {taken[r]})" if r in taken else "") for r in framework.repositories]
        if framework.over:
            images = [f"(over {framework.over})"]
        elif is_tool(framework):
            images = ["(beside others)"]
        how = state(found) if found else unready(framework, place)
        lines = [f"{how}, {tested(framework)}", packages(framework, found)]
        if framework.note:
            lines.append(f"[dim]{framework.note}[/]")
        table.add_row(framework.name, "\n".join(images), "\n".join(lines))
        table.add_row()
        taken |= dict.fromkeys(framework.repositories, framework.name)
    out.print(table, soft_wrap=False)
    out.print(
        "What is not built yet is built when a job or an endpoint first needs it, or with: "
        "cloche image build NAME. Add one with: cloche image add --help"
    )


@app.command(cls=Command)
def add(
    name: Name,
    repository: Annotated[
        list[str],
        typer.Option(
            metavar="REPOSITORY",
            help="A repository that it stands for, or the URI of an image in it. May be repeated.",
            show_default=False,
        ),
    ],
    package: Annotated[
        list[str],
        typer.Option(
            metavar="PACKAGE",
            help="A package, as pip takes it: lightgbm==4.6. May be repeated.",
            show_default=False,
        ),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the environment of this name.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Define the packages that stand for an image of yours; they are installed when first needed.

    Cloche runs no container: in a job with that image your script runs with these packages.
    """
    place = home_of(home)
    homes.prepare(place)
    made = read(lambda: added.add(place, name, repository, package, replace=replace))
    out.print(f"Added [bold]{name}[/] for {', '.join(made.repositories)}.")
    if ready(made, place) is None:
        out.print(
            "It is built when a job or an endpoint first needs it, or with: "
            f"cloche image build {name}{option(place)}",
            markup=False,
            soft_wrap=True,
        )
    else:
        out.print("It is built already: jobs and endpoints can use it.")


@app.command(cls=Command)
def build(name: Name, home: HomeOption = None) -> None:
    """Build an environment now: a virtual environment, filled by pip, once for all jobs.

    A failed build leaves nothing behind. A server that is up needs no restart.
    """
    place = home_of(home)
    framework = read(lambda: added.named(name, place))
    found = ready(framework, place)
    if found is not None:
        out.print(f"[bold]{name}[/] is {state(found)}, there is nothing to build:", end=" ")
        out.print(versions(found), markup=False)
        return
    homes.prepare(place)
    started = time.monotonic()
    out.print(f"Building [bold]{name}[/]: {escape(', '.join(framework.packages))}")
    try:
        with saying() as say:
            made = background.followed(framework, place, say)
    except KeyboardInterrupt:
        background.stop(place, framework)
        raise
    except OSError as error:
        raise Stop(f"{name} was not built: {error}. Nothing was left behind.") from None
    if isinstance(made, background.Failed):
        for line in made.lines if err.is_terminal else ():  # elsewhere all lines were printed
            err.print(f"  {line}", markup=False, style="dim")
        raise Stop(f"{name} was not built: {made.reason}. Nothing was left behind.")
    took = f"{time.monotonic() - started:.0f} s"
    out.print(f"Built [bold]{name}[/] in {took}, {size(disk_used(made.prefixes[0]))}:", end=" ")
    out.print(versions(made), markup=False)
    if framework.over:
        uses = f"{framework.over} scripts that import {' or '.join(framework.imported)}"
        out.print(f"It is used from now on for {uses}.")
    elif is_tool(framework):
        out.print(framework.note)
    else:
        uses = ", ".join(framework.repositories)
        out.print(f"Training jobs and models with these images use it from now on: {uses}")


@contextmanager
def saying() -> Iterator[Callable[[str], None]]:
    """Show what a build says: its last line and the time on a terminal, elsewhere every line."""
    if not err.is_terminal:
        yield lambda line: err.print(f"  {line}", markup=False)
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("")
        width = max(20, err.width - 16)
        yield lambda line: progress.update(task, description=escape(line.strip()[:width]))


def unready(framework: Framework, home: Home) -> str:
    """Return how far an environment is that is not there."""
    if background.is_under_way(framework, home):
        return "[yellow]being built[/]"
    failed = background.failure(framework, home)
    if failed is None:
        return "[yellow]not built yet[/]"
    return f"[red]not built[/] (the last attempt failed: {escape(failed.reason)})"


def state(found: Ready) -> str:
    """Return where it is that jobs use."""
    if found.built is None:
        return "[green]ready[/] (Cloche's own Python)"
    return f"[green]ready[/] (built {found.built[:10]})"


def tested(framework: Framework) -> str:
    """Return who vouches for it."""
    if framework.added:
        return "yours"
    tried = f" (tried once, with {framework.tried})" if framework.tried else ""
    return "tested" if framework.tested else f"untested{tried}"


def packages(framework: Framework, found: Ready | None) -> str:
    """Return what it consists of: with versions once it is there."""
    return escape(", ".join(first(framework.packages)) if found is None else versions(found))


def versions(found: Ready) -> str:
    """Return `torch 2.9.0, numpy 2.4.0`, and how many more there are."""
    return ", ".join(first([f"{name} {number}" for name, number in found.versions.items()]))


def read(what: Callable[[], T]) -> T:
    """Return what a look into the table gives; Stop says what is wrong."""
    try:
        return what()
    except added.TableError as error:
        raise Stop(str(error)) from None


def option(home: Home) -> str:
    """Return the option that names the home folder, where it is not the default one."""
    return "" if home.path == homes.default_path() else f" --home {home.path}"
