"""The command of a training script as AWS's PyTorch and Hugging Face images start it: by a shell.

Their toolkit joins the command with spaces (`sagemaker_training.process.run_async`) and has a shell
run that text, so `--layers 64 32` are two values, an empty text is none, and quotes go.
Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

# What a shell may take for more than a part of a word, in quotes or not.
SPECIAL = re.compile(r"[$`\\;&|<>(){}~#!\r\n\0]")
PATTERN = re.compile(r"[*?\[]")


def joined(command: Sequence[str]) -> str:
    """Return the text that the shell gets; the interpreter's path stays one word."""
    return " ".join([shlex.quote(command[0]), *command[1:]])


def by_shell(command: Sequence[str], code: Path) -> list[str]:
    """Return how to start what a shell, in the code folder, makes of the joined command.

    Plain words are split here, to the same effect: the interpreter is then started directly, and
    an understudy may take its place. Everything else goes to the shell.
    """
    text = joined(command)
    whole = ["/bin/sh", "-c", text]
    if SPECIAL.search(text):
        return whole
    try:
        words = shlex.split(text)
    except ValueError:  # a quote without its other: the shell says so
        return whole
    return whole if any(names_files(word, code) for word in words) else words


def names_files(word: str, code: Path) -> bool:
    """Return whether a shell may put names of files in the place of a word."""
    if not PATTERN.search(word):
        return False
    found = glob.iglob(word if word.startswith("/") else f"{glob.escape(str(code))}/{word}")
    return next(found, None) is not None
