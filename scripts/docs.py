"""Hold the docs in step: every command, option and setting is in README.md or docs/."""

import dataclasses
import sys
from pathlib import Path

from typer.main import get_command

from cloche.cli import app
from cloche.core.config import Config

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print what the docs lack; exit code 1 when there is something."""
    texts = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    docs = "\n".join(text.read_text() for text in texts)
    missing = [what for what in documented() if what not in docs]
    for what in missing:
        print(f"not in README.md or docs/: {what}")
    sys.exit(1 if missing else 0)


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


if __name__ == "__main__":
    main()
