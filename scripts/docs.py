"""Hold the docs in step: every command, option and setting is in README.md or docs/, every file
that docs/design names is there, and its picture of the layers is the code's.
"""

import dataclasses
import re
import sys
from pathlib import Path

import layers
from typer.main import get_command

from cloche.cli import app
from cloche.core.config import Config

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]+\.py\b")
LINK = re.compile(r"\]\(([\w./-]+\.md)\)")
FOLDERS = ("bench", "cloche", "examples", "scripts", "tests")


def main() -> None:
    """Print what is wrong with the docs; exit code 1 when something is."""
    texts = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    docs = "\n".join(text.read_text() for text in texts)
    wrong = [f"not in README.md or docs/: {what}" for what in documented() if what not in docs]
    wrong += missing_files()
    if layers.is_old():
        wrong.append(f"The picture of the layers is not the code's. Run {layers.COMMAND}")
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


def documented() -> list[str]:
    """Return every command, long option and setting."""
    group = get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    found = [f"cloche {name}" for name in commands]
    for command in commands.values():
        options = [option for param in command.params for option in param.opts]
        found += [option for option in options if option.startswith("--") and option != "--help"]
    found += [f"`{field.name}`" for field in dataclasses.fields(Config)]
    return sorted(set(found))


def missing_files() -> list[str]:
    """Return the files and pages that docs/design names and that are not there."""
    there = [
        f"/{path.relative_to(ROOT)}" for name in FOLDERS for path in (ROOT / name).rglob("*.py")
    ]
    missing = []
    for page in sorted((ROOT / "docs/design").glob("*.md")):
        text = page.read_text()
        named = {file for code in CODE.findall(text) for file in FILE.findall(code)}
        missing += [
            f"{page.name} names {file}, which is not there"
            for file in sorted(named)
            if not any(path.endswith(f"/{file}") for path in there)
        ]
        missing += [
            f"{page.name} leads to {link}, which is not there"
            for link in sorted(set(LINK.findall(text)))
            if not (page.parent / link).exists()
        ]
    return missing


if __name__ == "__main__":
    main()
