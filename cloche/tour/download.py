"""Downloads that can be interrupted and go on, and archives that are unpacked whole or not."""

import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from cloche.tour.errors import TourError

DOGS_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"

TIMEOUT_S = 30.0
ATTEMPTS = 5  # in a row without one new byte
CHUNK = 1024 * 1024

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


class Dropped(Exception):
    """The connection ended before the file did."""


def download(url: str, target: Path, progress: Progress, *, attempts: int = ATTEMPTS) -> Path:
    """Fetch `url` into `target`, going on from `target`.part where an earlier try ended.

    The part is only continued when the server still has the same file (If-Range). Raises
    TourError when the server refuses, or nothing comes in several tries; the part is kept.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    left = attempts
    while True:
        before = size(part)
        try:
            fetch(url, part, progress)
        except urllib.error.HTTPError as error:
            raise TourError(
                f"{url} can't be downloaded: HTTP {error.code} {error.reason}"
            ) from error
        except (OSError, http.client.HTTPException, Dropped) as error:
            left = attempts if size(part) > before else left - 1
            if left <= 0:
                reason = getattr(error, "reason", error)
                raise TourError(
                    f"{url} can't be downloaded: {reason}. {size(part):,} bytes are kept in "
                    f"{part}; the next attempt continues from there."
                ) from error
        else:
            break
    part.rename(target)
    tag_file(part).unlink(missing_ok=True)
    return target


def fetch(url: str, part: Path, progress: Progress) -> None:
    """Bring `part` to its full length in one request; Dropped when the answer ends early."""
    tag = tag_file(part).read_text() if tag_file(part).exists() else ""
    start = size(part) if tag else 0
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return  # the last try had come to the end
        part.unlink()
        raise Dropped("the file has changed on the server") from error
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server sends it all: it is another file, or it knows no ranges
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        tag_file(part).write_text(strong_tag(answer.headers.get("ETag")))
        with part.open("ab" if start else "wb") as file:
            done = start
            progress(done, total)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise Dropped(f"the connection ended after {done:,} of {total:,} bytes")


def strong_tag(tag: str | None) -> str:
    """Return the ETag where it promises the same bytes (RFC 9110, 8.8.3), else nothing."""
    return "" if tag is None or tag.startswith("W/") else tag


def tag_file(part: Path) -> Path:
    """Return where the ETag of a begun download is kept."""
    return part.with_name(part.name + ".etag")


def size(path: Path) -> int:
    """Return a file's length, 0 without one."""
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, target: Path, progress: Progress) -> Path:
    """Unpack a zip into `target`, which only appears when all of it is there.

    Raises TourError, and removes the archive, when it is damaged.
    """
    if target.exists():
        return target
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [m for m in content.infolist() if not m.filename.startswith("__MACOSX/")]
            total = sum(member.file_size for member in members)
            done = 0
            for member in members:
                content.extract(member, unfinished)
                done += member.file_size
                progress(done, total)
    except (zipfile.BadZipFile, EOFError) as error:
        archive.unlink()
        raise TourError(
            f"{archive} is damaged ({error}) and was removed; run the tour again."
        ) from error
    unfinished.rename(target)
    return target


def dogs(folder: Path, downloading: Progress, unpacking: Progress, *, url: str = DOGS_URL) -> Path:
    """Return the dog data set's image folder below `folder`, downloaded if it is not there yet."""
    unpacked = folder / "dogs"
    if not unpacked.exists():
        archive = download(url, folder / "dogImages.zip", downloading)
        unpack(archive, unpacked, unpacking)
        archive.unlink()
    inner = unpacked / "dogImages"
    return inner if inner.is_dir() else unpacked
