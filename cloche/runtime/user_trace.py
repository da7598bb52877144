"""Tracebacks as the author of a script reads them: from the script's first frame on.

Standard library only, Python 3.8 and later.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

OURS = str(Path(__file__).resolve().parent)
IMPORTING = (importlib.__file__, "<frozen importlib")  # what stands between us and a script


def user_trace(error: BaseException) -> str:
    """Return the traceback without the frames that lead to the script.

    Where no frame is the script's, all are shown.
    """
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    pending: list[traceback.TracebackException | None] = [shown]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        leading = lead(one.stack)
        if leading < len(one.stack) or isinstance(error, SyntaxError):
            del one.stack[:leading]
        pending += [one.__cause__, one.__context__]
    return "".join(shown.format())


def lead(stack: traceback.StackSummary) -> int:
    """Return how many frames at the start are ours, or the import's of the script."""
    others = (
        number
        for number, frame in enumerate(stack)
        if not frame.filename.startswith((OURS, *IMPORTING))
    )
    return next(others, len(stack))


def summary(error: BaseException, code: Path) -> str:
    """Return in a line where in the code's folder it failed, and how."""
    what = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    if isinstance(error, SyntaxError):
        where = place(error.filename or "", error.lineno, "", code)
        return f"{where}{what[-1]}"
    frames = traceback.extract_tb(error.__traceback__)
    places = (place(f.filename, f.lineno, f", in {f.name}", code) for f in reversed(frames))
    return f"{next(filter(None, places), '')}{' '.join(what)}"


def place(file: str, line: int | None, function: str, code: Path) -> str:
    """Return a place in the code's folder; empty where it is elsewhere."""
    try:
        name = Path(file).relative_to(code)
    except ValueError:
        return ""
    return f"{name}, line {line}{function}: "
