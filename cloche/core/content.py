"""Whether a file's content is what its record says: its size, and its MD5 or that of its parts.

`python -m cloche.core.content LIST` looks at the files that LIST names (JSON, a line each: path,
size, entity tag, sizes of the parts) and prints the number and the fault of each that has one. A
process of its own, of low priority: whoever trains goes first.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20  # bytes read at a time


def fault(
    path: str | Path,
    size: int,
    etag: str,
    parts: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> str | None:
    """Return what is wrong with a file; None when it is as it was written.

    etag: 32 hex digits, or the MD5 of its parts' MD5s with their number. FileNotFoundError.
    progress: is called with the number of bytes that were read.
    """
    with open(path, "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if there != size:
            return f"it has {there:,} bytes instead of {size:,}"
        whole, _, number = etag.partition("-")
        if not number:
            found = md5(file, size, progress).hex()
        elif int(number) != len(parts) or sum(parts) != size:
            return None  # what its tag stands for was not kept
        else:
            sums = b"".join(md5(file, part, progress) for part in parts)
            found = hashlib.md5(sums, usedforsecurity=False).hexdigest()
    return None if found == whole else f"its MD5 is {found} instead of {whole}"


def md5(file: BinaryIO, size: int, progress: Callable[[int], None] | None) -> bytes:
    """Return the MD5 of a file's next bytes."""
    digest, left = hashlib.md5(usedforsecurity=False), size
    while left and (piece := file.read(min(PIECE, left))):
        digest.update(piece)
        left -= len(piece)
        if progress is not None:
            progress(len(piece))
    return digest.digest()


def main(listed: Path) -> None:
    """Print the faults."""
    os.nice(10)
    with listed.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            path, size, etag, parts = json.loads(line)
            try:
                found = fault(path, size, etag, parts)
            except OSError as error:
                found = error.strerror
            if found is not None:
                print(json.dumps([number, found]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
