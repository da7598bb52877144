"""Which software stands behind an image URI: an environment on this machine, or a refusal.

Nothing is pulled: a framework image stands for an interpreter that has the framework's packages
(`cloche.environments.table`). What really runs is said in the job's log (`Environment.versions`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import python_version

from cloche.core import home as homes
from cloche.core import log_lines
from cloche.core.config import Home
from cloche.core.errors import AwsError, unsupported
from cloche.environments.added import IMAGE, NAME, TableError, listed, standing_for
from cloche.environments.background import Failed
from cloche.environments.ready import first, ready
from cloche.environments.table import BUILT_IN, FRAMEWORKS, Framework

HEADING = "Cloche runs"
WORDS = 600  # characters of what pip said that a FailureReason has room for


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter and what is installed beside it.

    `prefixes` are the folders that a sandbox needs to see, at the same paths: the virtual
    environment first, then the base interpreter it was made from.
    """

    framework: Framework
    python: Path
    prefixes: tuple[Path, ...]
    versions: Mapping[str, str]

    @property
    def name(self) -> str:
        """The framework's name."""
        return self.framework.name

    @property
    def description(self) -> str:
        """Return `pytorch: Python 3.11.2, torch 2.9.0, …`."""
        versions = [f"{name} {number}" for name, number in self.versions.items()]
        return f"{self.name}: {', '.join([f'Python {python_version()}', *first(versions)])}"


class NotBuilt(Exception):
    """An image's environment could not be built; the text says why."""


def framework_of(image_uri: str, home: Home) -> Framework:
    """Return what stands for an image; an AwsError names an image that nothing stands for.

    Any version (tag) of a known repository, of any registry and region, maps to the environment
    that there is. The refusal names the command that adds one to the table.
    """
    match = IMAGE.fullmatch(image_uri)
    if match is None:
        raise unsupported(
            f"the image {image_uri}",
            "Specify a framework's image: ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG, as "
            "sagemaker.image_uris.retrieve gives it.",
        )
    try:
        framework = standing_for(match["repository"], home)
    except TableError as error:
        raise AwsError("ValidationException", str(error)) from None
    if framework is None and match["repository"] in BUILT_IN:
        raise built_in(BUILT_IN[match["repository"]], image_uri)
    if framework is None:
        raise unsupported(f"the image {image_uri}", unknown(match["repository"], home))
    return framework


def built_in(algorithm: str, image_uri: str) -> AwsError:
    """Return the refusal of an image that is one of SageMaker's own algorithms."""
    return unsupported(
        f"SageMaker's built-in algorithm {algorithm} (the image {image_uri})",
        "Train with a script of your own (entry_point): a framework's estimator, such as "
        "sagemaker.xgboost.XGBoost, names it as the hyperparameter sagemaker_program.",
    )


def environment_of(framework: Framework, image_uri: str, home: Home) -> Environment:
    """Return the environment that a line of the table names; an AwsError says it is not there."""
    found = ready(framework, home)
    if found is None:  # it was there when the launch began
        raise AwsError(
            "ValidationException",
            f"The image {image_uri} stands for the environment {framework.name}, which is not "
            f"built. Build it with: cloche image build {framework.name}{where(home)}",
        )
    return Environment(framework, found.python, found.prefixes, found.versions)


def say_what_runs(
    log: Path,
    now_ms: int,
    environment: Environment,
    image: str,
    more: Sequence[str],
    where: str = "",
) -> None:
    """Say in a log, once, which software really runs; it may have what a build said before.

    where: on which hardware, if that is not what was asked for.
    """
    if log.exists() and f" {HEADING} ".encode() in log.read_bytes():
        return
    lines = [f"{HEADING} {environment.description} (asked for: {image}){where}", *more]
    log.parent.mkdir(parents=True, exist_ok=True)
    log_lines.append(log, [(now_ms, line) for line in lines])


def not_built(framework: Framework, failed: Failed, home: Home) -> NotBuilt:
    """Return why a build failed, for a FailureReason: pip's words come last."""
    said = "\n".join(failed.lines)
    if len(said) > WORDS:
        said = f"…{said[-WORDS:]}"
    return NotBuilt(
        f"The environment {framework.name} was not built: {failed.reason}. To try again: "
        f"cloche image build {framework.name}{where(home)}" + (f"\n{said}" if said else "")
    )


def unknown(repository: str, home: Home) -> str:
    """Return what to do about an image that nothing stands for."""
    last = repository.rsplit("/", 1)[-1].replace("_", "-").replace(".", "-")
    taken = last in (framework.name for framework in FRAMEWORKS)
    name = last if NAME.fullmatch(last) and not taken else "NAME"
    known = listed([framework for framework in FRAMEWORKS if framework.repositories])
    return (
        f"There are environments for {known}. Say which packages stand for this one "
        f"with: cloche image add {name} --repository {repository} --package PACKAGE{where(home)}"
    )


def where(home: Home) -> str:
    """Return the option that names the home folder, where it is not the default one."""
    return "" if home.path == homes.default_path() else f" --home {shlex.quote(str(home.path))}"
