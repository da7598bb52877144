"""Building an environment: a virtual environment of this Python, filled by pip."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from cloche.core import beneath
from cloche.core.atomic import write_json
from cloche.core.config import Home
from cloche.core.typed import encode
from cloche.environments.ready import (
    MANIFEST,
    TOOLKITS,
    Manifest,
    Ready,
    folder_of,
    manifest,
    ready,
)
from cloche.environments.table import Framework, base_of, is_tool, named_here

LAST_LINES = 15  # of what a failed command said
QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
# Installs packages into the virtual environment at a folder; BuildError when that fails.
Pip = Callable[[Sequence[str], Path, Callable[[str], None]], None]


class BuildError(Exception):
    """A command of the build failed; nothing is left of it. `lines` are the last it said."""

    def __init__(self, what: str, lines: Sequence[str]) -> None:
        super().__init__(what)
        self.lines = tuple(lines)


def build(framework: Framework, home: Home, say: Callable[[str], None], foreign: Pip) -> Ready:
    """Return the framework's environment, built now unless it was; BuildError when that fails.

    `say` gets every line of venv and pip. pip's own settings (PIP_INDEX_URL, pip.conf) hold. Two
    builds at once wait for one another; what a killed one left is removed by the next. `foreign`
    installs what the platform's table does not name: such a package's build runs code of anybody.
    """
    home.environments.mkdir(parents=True, exist_ok=True)
    base = base_of(framework)
    under = None if base is None else ready(base, home) or build(base, home, say, foreign)
    folder = folder_of(framework, home)
    with locked(home, say):
        if manifest(folder) is None or not (folder / "bin/python").exists():
            beneath.remove(folder)
            try:
                fill(framework, folder, under, say, foreign)
            except BaseException:
                beneath.remove(folder)
                raise
    made = ready(framework, home)
    if made is None:
        raise BuildError(f"{folder} has no interpreter", ())
    return made


def fill(
    framework: Framework,
    folder: Path,
    under: Ready | None,
    say: Callable[[str], None],
    foreign: Pip,
) -> None:
    """Make the virtual environment, install, and say last that it is whole."""
    started = time.monotonic()
    say(f"Making a virtual environment of {sys.version.split()[0]}")
    # Nobody installs into a tool, and pip's own installation would take longer than all the rest.
    bare = is_tool(framework) and named_here(framework) and find_spec("pip") is not None
    without = ["--without-pip"] if bare else []
    run([sys.executable, "-I", "-m", "venv", *without, str(folder)], say)
    if under is not None:
        stand_on(under, folder)
    if bare:
        ours = [sys.executable, "-I", "-m", "pip", "--python", str(folder / "bin/python")]
        run([*ours, "install", *QUIET, "--", *framework.packages], say)
    elif framework.toolkits and named_here(framework):
        run(install_command(framework.packages, folder), say, compilers())
        add_toolkits(folder)
    else:
        (outside if named_here(framework) else foreign)(framework.packages, folder, say)
    made = Manifest(
        name=framework.name,
        packages=tuple(framework.packages),
        versions=distributions(folder),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
    )
    write_json(folder / MANIFEST, encode(made))


def install_command(packages: Sequence[str], folder: Path) -> list[str]:
    """Return how pip installs packages into a virtual environment.

    -I: nothing of the user's other Pythons gets in (PYTHONPATH, ~/.local).
    """
    pip = [str(folder / "bin/python"), "-I", "-m", "pip"]
    return [*pip, "install", *QUIET, "--", *packages]


def outside(packages: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Install as this user, in no sandbox."""
    run(install_command(packages, folder), say)


def distributions(folder: Path) -> dict[str, str]:
    """Return what is installed, by the names of folders: no code of a package is run for that."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("lib/python*/site-packages/*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        if name:
            found[name] = version
    return found


def stand_on(under: Ready, folder: Path) -> None:
    """Let a new virtual environment find another's packages, after its own, and its commands."""
    (site,) = folder.glob("lib/python*/site-packages")
    environments = under.prefixes[:-1] or under.prefixes  # the last is the interpreter's own
    found = [prefix.glob("lib*/python*/site-packages") for prefix in environments]
    beneath = [str(path) for paths in found for path in paths]
    (site / "beneath.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(beneath)))
    theirs = b"#!%s" % os.fsencode(under.prefixes[0] / "bin/")
    for command in (under.prefixes[0] / "bin").iterdir():
        ours = folder / "bin" / command.name
        if ours.exists() or not command.is_file() or command.is_symlink():
            continue
        first, rest = command.read_bytes().partition(b"\n")[::2]
        if first.startswith(theirs):
            ours.write_bytes(b"#!%s\n%s" % (os.fsencode(folder / "bin/python"), rest))
            ours.chmod(0o755)


def add_toolkits(folder: Path) -> None:
    """Copy the toolkits that come with Cloche beside what pip installed."""
    (site,) = folder.glob("lib/python*/site-packages")
    for package in sorted(TOOLKITS.iterdir()):
        if (package / "__init__.py").exists():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(package, site / package.name, ignore=ignored)


def compilers() -> dict[str, str]:
    """Return the variables of a build where C can't be compiled: no compiler, or no Python.h.

    What has no wheel for want of that is the toolkits' library that changes a host's name, which
    every host has of its own: it is left out. `true` compiles nothing.
    """
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) and headers.exists():
        return {}
    return {"CC": "true", "LDSHARED": "true"}


def run(
    command: Sequence[str], say: Callable[[str], None], variables: Mapping[str, str] | None = None
) -> list[str]:
    """Run a command and return its lines; BuildError when it fails."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})},
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                lines.append(line.rstrip())
                say(lines[-1])
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        kind = "pip" if "pip" in command else "venv"
        raise BuildError(f"{kind} ended with exit code {child.returncode}", lines[-LAST_LINES:])
    return lines


@contextmanager
def locked(home: Home, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the one lock of builds; the kernel frees it when its holder dies."""
    with (home.environments / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another build to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
