"""The tour: one whole story, run on the platform exactly as a user would run it on AWS.

This process prepares the data, starts the platform and stops it again; the story itself
(`cloche.tour.story`) runs under `cloche run`, with nothing but boto3 and the SageMaker SDK.
"""

import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cloche.tour.download import dogs
from cloche.tour.errors import TourError
from cloche.tour.folder import read_folder
from cloche.tour.hints import where_it_is
from cloche.tour.plan import INSTANCES, TRIALS, TourPlan, TourSize, tour_folder
from cloche.tour.server import TourServer

__all__ = ["DATASETS", "main"]

DATASETS = ("dogs",)
EPOCHS = 5
NEEDED = (
    ("boto3", "sagemaker", "sklearn", "PIL", "matplotlib", "requests", "jinja2"),  # cloche[tour]
    ("torch", "torchvision", "efficientnet_lite_pytorch"),  # cloche[pytorch]
)


def main(
    *,
    home: Path = Path(".tour"),
    data: Path | None = None,
    dataset: str | None = None,
    epochs: int = EPOCHS,
    port: int | None = None,
    trials: int = TRIALS,
    instances: int = INSTANCES,
) -> int:
    """Run the tour and return the exit code: 0 done, 1 failed, 2 wrongly asked, 130 interrupted.

    home: the platform's home folder, kept afterwards. data: an image folder
    (`train/valid/test/CLASS/*`); dataset: `dogs` is downloaded; with neither, handwritten digits.
    epochs: how often training goes over the pictures. port: the platform's; a free one without it.
    trials: of the tuning job; instances: of the job that trains on several (fewer for tests).
    """
    console = Console()
    try:
        with endings():
            size = TourSize(epochs, trials, instances)
            return story(console, home.resolve(), data, dataset, size, port)
    except TourError as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def story(
    console: Console,
    home: Path,
    data: Path | None,
    dataset: str | None,
    size: TourSize,
    port: int | None,
) -> int:
    """Prepare the data, then run the platform and the story on it; returns the exit code."""
    started = time.time()
    try:
        check_asked(data, dataset, size.epochs)
        source = find_example()
        folder = prepare(console, home, data, dataset)
    except TourError as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("\nInterrupted; what was downloaded is kept.")
        raise
    server = TourServer(home)
    plan = TourPlan(
        home=str(home),
        data=str(folder) if folder else None,
        data_name=name_of(folder, dataset),
        prefix=prefix_of(folder, dataset),
        source=str(source),
        size=size,
        started=started,
        stays_up=server.is_up(),
    )
    return run(console, server, plan, port)


def run(console: Console, server: TourServer, plan: TourPlan, port: int | None) -> int:
    """Start the platform, run the story, stop the platform if we started it."""
    try:
        if not plan.stays_up:
            with console.status("Starting the platform"):
                server.up(port)
        return server.run([sys.executable, "-P", "-m", "cloche.tour", plan.to_json()])
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # shutting down is seen through
        if not plan.stays_up:
            with console.status("Shutting the platform down"):
                server.down()
            console.print(
                f"The platform is down, everything is kept.\n{where_it_is(plan.home)}",
                highlight=False,
                soft_wrap=True,
            )


def check_asked(data: Path | None, dataset: str | None, epochs: int) -> None:
    """Raise TourError when the arguments don't fit, or packages are missing."""
    if data is not None and dataset is not None:
        raise TourError("Give --data or --dataset, not both.")
    if dataset is not None and dataset not in DATASETS:
        raise TourError(f"There is no data set {dataset!r}; there is: {', '.join(DATASETS)}.")
    if epochs < 1:
        raise TourError(f"--epochs must be at least 1, not {epochs}.")
    missing = [name for names in NEEDED for name in names if not importlib.util.find_spec(name)]
    if missing:
        raise TourError(
            f"The tour needs packages that are not installed: {', '.join(missing)}. "
            "Install them with: pip install 'cloche[tour,pytorch]'"
        )


def prepare(console: Console, home: Path, data: Path | None, dataset: str | None) -> Path | None:
    """Return the image folder that was asked for, looked through; None for the digits."""
    if dataset is not None:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
        ) as progress:
            first = progress.add_task("Downloading dogImages.zip", total=None)
            second = progress.add_task("Unpacking", total=None, visible=False)
            data = dogs(
                tour_folder(home),
                lambda done, total: progress.update(first, completed=done, total=total),
                lambda done, total: progress.update(
                    second, completed=done, total=total, visible=True
                ),
            )
    if data is None:
        return None
    return read_folder(data.resolve()).root


def name_of(folder: Path | None, dataset: str | None) -> str:
    """Return what the report calls the data."""
    if dataset is not None:
        return "dog photographs"
    return f"pictures of {folder.name}" if folder else "handwritten digits"


def prefix_of(folder: Path | None, dataset: str | None) -> str:
    """Return what the names of the bucket and of the tuning job begin with: what the data is."""
    if dataset is not None:
        return "dog-breeds"
    return "pictures" if folder else "digits"


def find_example() -> Path:
    """Return the example project's folder: beside the package, as in a checkout."""
    source = Path(__file__).resolve().parents[2] / "examples" / "dog_breeds"
    if not (source / "hpo.py").is_file():
        raise TourError(
            f"The example that the tour runs is not at {source}. "
            "Run the tour from a checkout of Cloche (pip install -e)."
        )
    return source


@contextmanager
def endings() -> Iterator[None]:
    """Let other ways of ending the tour be as Ctrl-C, until the block ends."""
    before = {
        number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(signum: int, frame: FrameType | None) -> None:
    """End the tour as Ctrl-C does."""
    raise KeyboardInterrupt
