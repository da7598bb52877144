"""What code asks for: the `requirements.txt` of a job, in the archive of its code, or of a model;
and modules that its scripts import.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packaging.requirements import InvalidRequirement, Requirement

from cloche.services.sagemaker.environments import Environment

NAME = "requirements.txt"
LOOKED_AT = 64 << 20  # bytes of the unpacked archive; one that hides it deeper has no layer
LONGEST = 64 << 10  # bytes of a requirements.txt
LONGEST_SCRIPT = 256 << 10  # bytes of a script that is looked at


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requirements for an environment. `settings`: variables that pip obeys.

    `digest` names what pip would make of this: another content, another name.
    """

    environment: Environment
    text: bytes
    settings: Mapping[str, str]
    digest: str


def wanted(
    text: bytes | None, environment: Environment, variables: Mapping[str, str]
) -> Wanted | None:
    """Return what a requirements.txt asks for; None: nothing that can be shared."""
    virtual = len(environment.prefixes) > 1
    if text is None or not virtual or not shareable(text):
        return None
    settings = {k: v for k, v in variables.items() if k.upper().startswith("PIP_")}
    return Wanted(environment, text, settings, digest_of(environment, text, settings))


def digest_of(environment: Environment, text: bytes, settings: Mapping[str, str]) -> str:
    """Return the digest of requirements for an environment as it is now."""
    venv = environment.prefixes[0]
    changed = [p.stat().st_mtime_ns for p in sorted(venv.glob("lib*/python*/site-packages"))]
    stands_on = [str(venv), changed, text.decode(), sorted(settings.items())]
    return hashlib.sha256(json.dumps(stands_on).encode()).hexdigest()[:16]


def read(file: Path) -> bytes | None:
    """Return the text of a requirements.txt; None when there is none."""
    with suppress(OSError):
        if file.is_file() and file.stat().st_size <= LONGEST:
            return file.read_bytes()
    return None


@dataclass(slots=True)
class Code:
    """What the archive of a script holds: its requirements.txt, and modules that it imports."""

    requirements: bytes | None
    imported: set[str]


def look_through(archive: Path, modules: Collection[str] = ()) -> Code:
    """Return the requirements.txt at the root of a sourcedir.tar.gz, and which of the modules a
    script in it imports; what can't be read has neither.
    """
    lines = {
        module: re.compile(rb"^[ \t]*(?:import|from)[ \t][^#\n]*\b%s\b" % module.encode(), re.M)
        for module in modules
    }
    found, decided = Code(None, set()), False
    with (
        suppress(OSError, EOFError, zlib.error, tarfile.TarError),
        gzip.open(archive) as unpacked,
        tarfile.open(fileobj=Limited(unpacked, LOOKED_AT), mode="r|") as tar,  # type: ignore[call-overload]
    ):
        for member in tar:
            name = posixpath.normpath(member.name)
            if not member.isreg():
                continue
            if name == NAME and not decided:
                decided = True
                found.requirements = content(tar, member, LONGEST)
            elif name.endswith(".py") and (text := content(tar, member, LONGEST_SCRIPT)):
                found.imported |= {module for module, line in lines.items() if line.search(text)}
            if decided and len(found.imported) == len(lines):
                break
    return found


def content(tar: tarfile.TarFile, member: tarfile.TarInfo, longest: int) -> bytes | None:
    """Return what a file of an archive holds; None when that is too much."""
    file = tar.extractfile(member) if member.size <= longest else None
    return None if file is None else file.read()


def shareable(text: bytes) -> bool:
    """Return whether lines name packages alone: the same ones for whoever brings the file.

    Options, other files, addresses and folders may mean something else each time.
    """
    try:
        lines = [line.split(" #")[0].strip() for line in text.decode().splitlines()]
        named = [Requirement(line) for line in lines if line and not line.startswith("#")]
    except (UnicodeDecodeError, InvalidRequirement):
        return False
    return bool(named) and all(requirement.url is None for requirement in named)


class Readable(Protocol):
    """Whatever can be read."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""


class Limited:
    """A stream that ends after so many bytes."""

    def __init__(self, stream: Readable, left: int) -> None:
        self.stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self.stream.read(min(size, self.left))
        self.left -= len(data)
        return data
