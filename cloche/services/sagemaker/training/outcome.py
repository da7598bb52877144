"""How a job ended: its failure reason, its archives. Reads what user code left; trusts none of it.

The processes have ended when this runs, so nothing moves beneath it. Symbolic links are archived
as links and never followed.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

REASON_LIMIT = 1024  # characters of FailureReason (API_DescribeTrainingJob)
TAIL_BYTES = 65_536
TRACEBACK = "Traceback (most recent call last):"


def inside(root: Path, relative: str) -> Path | None:
    """Return the folder `relative` beneath root; None if it is none, or a link on the way is."""
    path = root
    for part in relative.split("/"):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError:
            return None
        if not stat.S_ISDIR(mode):
            return None
    return path


def failure_text(ml: Path) -> str:
    """Return what the algorithm wrote to `/opt/ml/output/failure`, or nothing."""
    folder = inside(ml, "output")
    if folder is None:
        return ""
    try:
        fd = os.open(folder / "failure", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return file.read(TAIL_BYTES).decode("utf-8", "replace").strip()


def traceback_text(log: Path) -> str:
    """Return the message of the last traceback in a log file, or nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    texts = [re.sub(r"^\d+ ?", "", line) for line in lines]
    starts = [number for number, text in enumerate(texts) if text.strip() == TRACEBACK]
    if not starts:
        return ""
    after = texts[starts[-1] + 1 :]
    frames = next((n for n, text in enumerate(after) if text[:1].strip()), len(after))
    return "\n".join(after[frames:]).strip()


def failure_reason(ml: Path, log: Path, exit_code: int, host: str | None) -> str:
    """Return FailureReason for a process that ended with this code (negative: that signal).

    host: named at the end where there are several; AWS leaves the reader to guess it.
    """
    code = 128 - exit_code if exit_code < 0 else exit_code
    text = failure_text(ml) or traceback_text(log)
    ending = f", exit code: {code}" + (f", host: {host}" if host else "")
    return f"AlgorithmError: {text[: REASON_LIMIT - len(ending) - 16]}{ending}"


def make_readable(root: Path) -> None:
    """Give the owner back what the script took: a server that is not root must read it all."""
    for folder, folders, files in os.walk(root):
        for name, needed in [*((f, 0o700) for f in folders), *((f, 0o400) for f in files)]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & needed != needed:
                path.chmod(stat.S_IMODE(mode) | needed)


def members(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of everything beneath the roots; the first root wins."""
    seen: set[str] = set()
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders.sort()
            here = Path(folder)
            for name in sorted([*files, *folders]):
                path = here / name
                relative = str(path.relative_to(root))
                if relative not in seen:
                    seen.add(relative)
                    yield relative, path


def regular(roots: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return relative name and path of the plain files beneath the roots."""
    for root in roots:
        make_readable(root)
    return [(name, path) for name, path in members(roots) if stat.S_ISREG(path.lstat().st_mode)]


def archive(roots: Sequence[Path], target: Path) -> bool:
    """Write everything beneath the roots as a tar.gz; False (and no file) when there is nothing.

    Owners are left out. Compression is quick rather than thorough: weights hardly shrink.
    """
    for root in roots:
        make_readable(root)
    found = list(members(roots))
    if not found:
        return False
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        for name, path in found:
            tar.add(path, arcname=name, recursive=False, filter=anonymous)
    return True


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out who owned a file outside, and what is neither file, folder nor link."""
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
