"""What code asks for: the `requirements.txt` of a job, in the archive of its code, or of a model;
and modules that its scripts import.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from cloche.archives.reader import FILE, ArchiveEntry, ArchiveReader, BadArchive
from cloche.core import beneath
from cloche.services.sagemaker.software.images import Environment

NAME = "requirements.txt"
LOOKED_AT = 64 << 20  # bytes of the unpacked archive; one that hides it deeper has no layer
ENTRIES = 20_000  # of the archive
LONGEST = 64 << 10  # bytes of a requirements.txt
LONGEST_LINE = 1000  # characters; parsing takes a step a character, and nests
LONGEST_SCRIPT = 256 << 10  # bytes of a script that is looked at


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requirements for an environment. `settings`: variables that pip obeys.

    `digest` names what pip would make of this for one role, with whose rights it runs: another
    content or another role, another name.
    """

    environment: Environment
    text: bytes
    settings: Mapping[str, str]
    digest: str


def wanted(
    text: bytes | None, environment: Environment, variables: Mapping[str, str], role_arn: str
) -> Wanted | None:
    """Return what a requirements.txt asks for; None: nothing that jobs of the role can share."""
    virtual = len(environment.prefixes) > 1
    if text is None or not virtual or not shareable(text):
        return None
    settings = {k: v for k, v in variables.items() if k.upper().startswith("PIP_")}
    digest = digest_of(environment, text, settings, role_arn)
    return Wanted(environment, text, settings, digest)


def digest_of(
    environment: Environment, text: bytes, settings: Mapping[str, str], role_arn: str
) -> str:
    """Return the digest of requirements for an environment as it is now.

    What pip ran with a role's rights, and may have read by them, no other role gets.
    """
    venv = environment.prefixes[0]
    changed = [p.stat().st_mtime_ns for p in sorted(venv.glob("lib*/python*/site-packages"))]
    stands_on = [str(venv), changed, text.decode(), sorted(settings.items()), role_arn]
    return hashlib.sha256(json.dumps(stands_on).encode()).hexdigest()[:16]


def read(folder: Path) -> bytes | None:
    """Return the text of the requirements.txt in a folder; None when there is none.

    A user's archive filled the folder: no link in it is followed.
    """
    found = beneath.read(folder, NAME, LONGEST + 1)
    return found if found is not None and len(found) <= LONGEST else None


@dataclass(slots=True)
class Code:
    """What the archive of a script holds: its requirements.txt, and modules that it imports."""

    requirements: bytes | None
    imported: set[str]


def look_through(archive: Path, modules: Collection[str] = ()) -> Code:
    """Return the requirements.txt at the root of a sourcedir.tar.gz, and which of the modules a
    script in it imports; what can't be read has neither.
    """
    lines = imports(modules)
    found, decided, looked_at = Code(None, set()), False, 0
    with suppress(OSError, BadArchive), archive.open("rb", buffering=0) as stream:
        reader = ArchiveReader(stream, LOOKED_AT)
        for entry in reader.entries():
            looked_at += 1
            if looked_at > ENTRIES or (decided and len(found.imported) == len(lines)):
                break
            if entry.kind != FILE:
                continue
            name = posixpath.normpath(entry.name)
            if name == NAME.encode() and not decided:
                decided = True
                found.requirements = content(reader, entry, LONGEST)
            elif name.endswith(b".py") and (text := content(reader, entry, LONGEST_SCRIPT)):
                found.imported |= {module for module, line in lines.items() if line.search(text)}
    return found


def imports(modules: Collection[str]) -> dict[str, re.Pattern[bytes]]:
    """Return what finds the import of each module in a script's text."""
    return {
        module: re.compile(rb"^[ \t]*(?:import|from)[ \t][^#\n]*\b%s\b" % module.encode(), re.M)
        for module in modules
    }


def imported_in(folder: Path, modules: Collection[str]) -> set[str]:
    """Return which of the modules a script beneath a folder imports.

    A user filled it: no link is followed, and what is too much is not looked at.
    """
    lines, found, left = imports(modules), set[str](), LOOKED_AT
    with suppress(OSError), beneath.folder(folder) as root:
        for entry in beneath.walk(root, beneath.WalkBounds(entries=ENTRIES)):
            size = entry.status.st_size
            if not entry.name.endswith(".py") or not 0 < size <= min(LONGEST_SCRIPT, left):
                continue
            left -= size
            text = beneath.read(folder, entry.path, LONGEST_SCRIPT) or b""
            found |= {module for module, line in lines.items() if line.search(text)}
            if len(found) == len(lines):
                break
    return found


def content(reader: ArchiveReader, entry: ArchiveEntry, longest: int) -> bytes | None:
    """Return what a file of an archive holds; None when that is too much."""
    return b"".join(reader.content()) if entry.size <= longest else None


def shareable(text: bytes) -> bool:
    """Return whether lines name packages alone: the same ones for whoever brings the file.

    Options, other files, addresses and folders may mean something else each time.
    """
    try:
        lines = [line.split(" #")[0].strip() for line in text.decode().splitlines()]
        if any(len(line) > LONGEST_LINE for line in lines):
            return False
        named = [Requirement(line) for line in lines if line and not line.startswith("#")]
    except (UnicodeDecodeError, InvalidRequirement, RecursionError):
        return False
    return bool(named) and all(requirement.url is None for requirement in named)
