"""What `cloche fsck` runs: `python -m cloche.fsck HOME`.

Reads every content in the home folder and compares it with its record. The server may be up: what
is replaced or deleted meanwhile is looked up again before anything is said of it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.engine import Connection

from cloche.core.config import Home
from cloche.core.content import fault
from cloche.records import objects as rows
from cloche.records.database import connect, refuse_newer
from cloche.records.errors import NewerDatabase, NotADatabase
from cloche.terminal import Stop, count, err, out, size

MISSING = "its content is missing"


@dataclass(frozen=True, slots=True)
class Damage:
    """An object, or a part of an upload, that is not what was put."""

    name: str
    text: str


def check(
    connection: Connection, home: Home, progress: Callable[[int], None]
) -> Iterator[Damage | None]:
    """Yield what is wrong with each object and each part; None: nothing."""
    for row in rows.every_object(connection):
        parts = rows.part_sizes(row)
        found = look(home, row.blob, row.size, row.etag, parts, progress)
        newer = rows.find_object(connection, row.bucket, row.key) if found else None
        if found is not None and newer is not None and newer.blob == row.blob:
            yield Damage(f"s3://{row.bucket}/{row.key}", found)
        else:
            yield None
    for part in rows.every_part(connection):
        found = look(home, part.blob, part.size, part.etag, [], progress)
        if found is not None and rows.is_part(connection, part):
            yield Damage(f"part {part.number} of upload {part.upload}", found)
        else:
            yield None


def look(
    home: Home,
    blob: str,
    length: int,
    etag: str,
    parts: list[int],
    progress: Callable[[int], None],
) -> str | None:
    """Return what is wrong with a content; None: nothing."""
    try:
        return fault(home.blobs / blob[:2] / blob, length, etag, parts, progress)
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"it can't be read: {error.strerror}"


def fsck(home: Home) -> None:
    """Print what is damaged or missing; Stop with code 1 when something is."""
    if not home.database.exists():
        raise Stop(f"There is no home folder of Cloche's at {home.path}.")
    try:
        refuse_newer(home.database)
    except (NewerDatabase, NotADatabase) as error:
        raise Stop(str(error)) from None
    engine = connect(f"sqlite:///{home.database}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        total = rows.total_size(connection)
        columns = (TextColumn("Reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        read, looked, damaged = 0, 0, list[Damage]()
        with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
            task = bar.add_task("", total=total)

            def progress(length: int) -> None:
                nonlocal read
                read += length
                bar.update(task, completed=read)

            for found in check(connection, home, progress):
                looked += 1
                if found is not None:
                    damaged.append(found)
                    text = f"damaged: {printable(found.name)}: {found.text}"
                    bar.stop()
                    out.print(text, markup=False)
                    bar.start()
    engine.dispose()
    whole = f"{count(looked, 'content')} ({size(read)}) checked"
    if damaged:
        raise Stop(
            f"{whole}: {len(damaged)} damaged or missing. Upload them again, or restore the home "
            "folder from a backup; nothing was changed."
        )
    out.print(f"{whole}: all are intact.", markup=False)


def printable(text: str) -> str:
    """Return a name in which nothing steers a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


if __name__ == "__main__":
    os.nice(10)
    try:
        fsck(Home(Path(sys.argv[1])))
    except Stop as stop:
        err.print(str(stop), markup=False)
        sys.exit(stop.code)
