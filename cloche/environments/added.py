"""What a user adds to the table: `environments.json` in the home folder, written by `image add`.

    {"environments": {"NAME": {"repositories": ["my-image"], "packages": ["lightgbm==4.6"]}}}

It may be edited by hand too; the server reads it whenever it looks up an image.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from cloche.core.atomic import write_json
from cloche.core.config import Home
from cloche.environments.table import FRAMEWORKS, Framework

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# A repository's name (ECR's CreateRepository), and an image's URI as SageMaker takes it.
REPOSITORY = re.compile(r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*/)*[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
IMAGE = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    rf"/(?P<repository>{REPOSITORY.pattern})(:(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{{64}})?"
)
# PEP 508: a name, perhaps extras, then nothing, versions, or `@ URL`. Never an option of pip.
VERSIONS = r"(?:===?|[<>~!]=|[<>])\s*[\w.*+!-]+"
PACKAGE = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9 ,._-]+\])?"
    rf"\s*(?:{VERSIONS}(?:\s*,\s*{VERSIONS})*|@\s*\S+)?(?:\s*;[^\n]+)?"
)
HELP = "Fix it by hand, or remove it and use cloche image add."


class TableError(Exception):
    """An entry is not possible; the text says which, why, and what is."""


def frameworks(home: Home) -> tuple[Framework, ...]:
    """Return all of the table, the user's entries first; TableError when those can't be read."""
    return (*added(home), *FRAMEWORKS)


def standing_for(repository: str, home: Home) -> Framework | None:
    """Return what stands behind a repository: the user's entry goes before ours."""
    return next((f for f in frameworks(home) if repository in f.repositories), None)


def named(name: str, home: Home) -> Framework:
    """Return one line of the table; TableError names those that there are."""
    known = frameworks(home)
    for framework in known:
        if framework.name == name:
            return framework
    raise TableError(f"There is no environment {name}. There are: {listed(known)}.")


def listed(known: Sequence[Framework]) -> str:
    """Return their names."""
    return ", ".join(framework.name for framework in known)


def added(home: Home) -> tuple[Framework, ...]:
    """Return the user's entries; TableError says what is wrong with the file, and where."""
    path = home.environments_table
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise TableError(f"{path} can't be read: {error}. {HELP}") from None
    entries = content.get("environments") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise TableError(f'{path} holds no {{"environments": {{NAME: …}}}}. {HELP}')
    found: list[Framework] = []
    for name, entry in entries.items():
        try:
            found.append(checked(name, entry, found))
        except TableError as error:
            raise TableError(f"{path}: {error} {HELP}") from None
    return tuple(found)


def checked(name: str, entry: Any, others: Sequence[Framework]) -> Framework:
    """Return an entry as a line of the table; TableError says what is wrong with it."""
    if not NAME.fullmatch(name):
        raise TableError(
            f"{name!r} is not a valid name: use a-z, 0-9 and -, at most 63 characters."
        )
    if name in (framework.name for framework in FRAMEWORKS):
        raise TableError(
            f"{name} comes with Cloche. Choose another name; your own entry may have the same "
            "repositories, and then takes precedence."
        )
    if not isinstance(entry, dict) or set(entry) != {"repositories", "packages"}:
        raise TableError(f"{name} must have repositories and packages, and nothing else.")
    for kind, pattern, what in (
        (
            "repositories",
            REPOSITORY,
            "a repository, such as my-team/my-image, without registry and tag",
        ),
        ("packages", PACKAGE, "a package as pip takes it, such as lightgbm==4.6"),
    ):
        values = entry[kind]
        if not isinstance(values, list) or not values:
            raise TableError(f"{name}: {kind} must be a list with at least one text.")
        for value in values:
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise TableError(f"{name}: {value!r} is not {what}.")
    for other in others:
        for repository in set(entry["repositories"]) & set(other.repositories):
            raise TableError(f"{name}: {other.name} already stands for {repository}.")
    repositories, packages = tuple(entry["repositories"]), tuple(entry["packages"])
    return Framework(name=name, repositories=repositories, packages=packages, added=True)


def add(
    home: Home, name: str, repositories: Sequence[str], packages: Sequence[str], *, replace: bool
) -> Framework:
    """Keep an entry, durably; TableError when it can't be. A whole image URI names its repository.

    The entry of a known name is only replaced with `replace`.
    """
    others = {framework.name: framework for framework in added(home)}
    if name in others and not replace:
        raise TableError(f"There is an environment {name} already. To change it, add --replace.")
    others.pop(name, None)
    entry = {
        "repositories": list(dict.fromkeys(map(repository_of, repositories))),
        "packages": list(dict.fromkeys(package.strip() for package in packages)),
    }
    framework = checked(name, entry, list(others.values()))
    others[name] = framework
    entries = {
        each.name: {"repositories": list(each.repositories), "packages": list(each.packages)}
        for each in others.values()
    }
    write_json(home.environments_table, {"environments": entries})
    return framework


def repository_of(text: str) -> str:
    """Return the repository that an image URI names; any other text as it is."""
    match = IMAGE.fullmatch(text)
    return match["repository"] if match else text.strip()
