"""The lines of logs, `<milliseconds since 1970> <text>`, as the platform itself writes them.

Beside them are those that a supervisor writes (it runs apart from this package), and those of
PutLogEvents; `services.logs` reads all.
"""

import os
from collections.abc import Iterable
from pathlib import Path

FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def line(at_ms: int, text: str) -> str:
    """Return the lines of a text, which has mostly one."""
    return "".join(f"{at_ms} {part}\n" for part in text.split("\n"))


def append(log: Path, records: Iterable[tuple[int, str]]) -> None:
    """Add texts, each with its time, to a log that an engine may be appending to as well.

    One write, so that no line of the other's is torn. OSError when the disk is full: what it had
    room for stays.
    """
    content = "".join(line(at_ms, text) for at_ms, text in records).encode("utf-8", "replace")
    descriptor = os.open(log, FLAGS, 0o644)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def texts(content: bytes) -> tuple[list[str], int]:
    """Return the texts of the whole lines that a part of a log begins with, and their length."""
    length = content.rfind(b"\n") + 1
    lines = content[:length].decode("utf-8", "replace").splitlines()
    return [line.partition(" ")[2] for line in lines], length
