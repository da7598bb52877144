"""Objects of S3 as files: what an S3DataSource names, hard-linked into a folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.outside import OutsideError
from cloche.services.s3 import Inputs, PublicObject
from cloche.services.sagemaker.names import Request

if TYPE_CHECKING:
    from cloche.services.s3 import ActingS3, StoredObject

    Source = ActingS3 | Inputs  # what is here, or the public buckets of the real S3 besides


LARGEST_MANIFEST = 64 << 20  # bytes
AT_ONCE = 8  # objects that are read outside at a time


class DownloadError(Exception):
    """Input could not be presented; the text is what follows `Data download failed:`."""


@dataclass(frozen=True, slots=True)
class ChannelObject:
    """An object and where it lies in the channel, as a relative path."""

    stored: StoredObject | PublicObject
    path: str


@dataclass(frozen=True, slots=True)
class Staged:
    """A file of a job that stands for an object."""

    path: Path
    stored: StoredObject


@dataclass
class Outside:
    """What a job reads of the real S3; `lines` are for its log."""

    volume_bytes: int  # 0: as much as there is
    taken: int = 0
    lines: list[str] = field(default_factory=list)

    def take(self, what: str, found: Sequence[StoredObject | PublicObject]) -> None:
        """Count objects that will be downloaded; DownloadError when they are too much."""
        sizes = [one.size for one in found if isinstance(one, PublicObject)]
        if not sizes:
            return
        self.taken += sum(sizes)
        if self.volume_bytes and self.taken > self.volume_bytes:
            raise DownloadError(
                f"Insufficient disk space. {what} and what was read before it have "
                f"{self.taken:,} bytes; VolumeSizeInGB allows {self.volume_bytes >> 30} GiB"
            )
        objects = "1 object" if len(sizes) == 1 else f"{len(sizes):,} objects"
        self.lines.append(
            f"{what} was read from the real S3 without a key: {objects}, {sum(sizes):,} bytes"
        )


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key (or prefix) of `s3://bucket/key`; an AwsError when it is none."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise AwsError(
            "ValidationException", f"Invalid S3 URI: {uri} (expected: s3://BUCKET/PREFIX)."
        )
    return bucket, key


def objects(s3: Source, source: Request, mode: str) -> list[ChannelObject]:
    """Return what a channel's S3DataSource stands for, in key order; DownloadError when wrong."""
    try:
        if source["S3DataType"] == "ManifestFile":
            return list(from_manifest(s3, source["S3Uri"]))
        return list(from_prefix(s3, source["S3Uri"], mode))
    except OutsideError as error:
        raise DownloadError(str(error)) from error


def from_prefix(s3: Source, uri: str, mode: str) -> Iterator[ChannelObject]:
    """Yield every object whose key begins with the prefix.

    Beneath a folder the path is the rest of the key; a partial name keeps its last part, so that
    `part-` gives `part-0`, `part-1`. FastFile mode knows whole files and folders alone.
    """
    bucket, prefix = split_uri(uri)
    require_bucket(s3, bucket)
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    parent = prefix[: prefix.rfind("/") + 1]
    found = False
    for stored in s3.list(bucket, prefix):
        found = True
        within = stored.key.startswith(folder)
        if mode == "FastFile" and not within and stored.key != prefix:
            raise DownloadError(
                "Failed to download data. For FastFile mode, partial S3 prefix is not supported. "
                "S3 prefix has to end with a full file or folder. Add a trailing '/' to the S3 "
                "prefix if it ends with a folder name that is also a prefix for other folders."
            )
        yield ChannelObject(stored, stored.key[len(folder if within else parent) :])
    if not found:
        raise DownloadError(f"No S3 objects found under S3 URL {uri}")


def from_manifest(s3: Source, uri: str) -> Iterator[ChannelObject]:
    """Yield the objects that a manifest names: `[{"prefix": "s3://…/"}, "path", …]`."""
    bucket, key = split_uri(uri)
    manifest = s3.find(bucket, key)
    if manifest is None:
        raise DownloadError(f"Unable to find the manifest {uri}")
    if manifest.size > LARGEST_MANIFEST:
        raise DownloadError(f"The manifest {uri} has more than {LARGEST_MANIFEST:,} bytes")
    content = content_of(s3, manifest)
    try:
        head, *paths = json.loads(content)
        prefix = head["prefix"]
        names = [f"{path}" for path in paths if isinstance(path, str)]
        if not isinstance(prefix, str) or len(names) != len(paths):
            raise TypeError("expected are a prefix and a list of strings")
        data_bucket, data_prefix = split_uri(prefix)
    except (ValueError, TypeError, KeyError, RecursionError, AwsError) as error:
        raise DownloadError(
            f'The manifest {uri} is not of the form [{{"prefix": "s3://BUCKET/PREFIX/"}}, '
            f'"PATH", …]: {error}'
        ) from error
    for name in names:
        stored = s3.find(data_bucket, data_prefix + name)
        if stored is None:
            raise DownloadError(f"Unable to find {prefix}{name}, which the manifest {uri} names")
        yield ChannelObject(stored, name)


def content_of(s3: Source, found: StoredObject | PublicObject) -> bytes:
    """Return a whole object's content."""
    if isinstance(s3, Inputs):
        return s3.read(found)
    assert not isinstance(found, PublicObject)
    return s3.content(found).read_bytes()


def require_bucket(s3: Source, bucket: str) -> None:
    """Raise DownloadError when there is no such bucket."""
    if not s3.bucket_exists(bucket):
        raise DownloadError(f"NoSuchBucket: The specified bucket does not exist: {bucket}")


def link_all(s3: Source, placed: Sequence[ChannelObject], folder: Path) -> list[Staged]:
    """Fill a new folder with hard links, and with what is read outside; DownloadError for keys
    that can't be files. Returns what is here: what came from outside was looked at as it came.
    """
    staged = list[Staged]()
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(s3, Inputs):
        fetch_all(s3, [item for item in placed if isinstance(item.stored, PublicObject)], folder)
    for item in placed:
        stored = item.stored
        if isinstance(stored, PublicObject):
            continue
        with explained(stored.key, item.path):
            target = place(item, folder)
            try:
                if target is not None:
                    staged.append(link(s3, stored, target))
            except FileExistsError:
                assert target is not None
                if not same_file(stored.path, target):
                    raise
    return staged


def fetch_all(inputs: Inputs, placed: Sequence[ChannelObject], folder: Path) -> None:
    """Fill a folder with what is read outside, several at a time; the first failure ends it."""

    def fetch(items: Sequence[ChannelObject]) -> None:
        for item in items:
            with explained(item.stored.key, item.path):
                target = place(item, folder)
                if target is not None:
                    inputs.link(item.stored, target)

    if not placed:
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download") as pool:
        work = [pool.submit(fetch, placed[number::AT_ONCE]) for number in range(AT_ONCE)]
        try:
            for one in as_completed(work):
                one.result()
        except BaseException:
            inputs.halted.set()
            raise


def place(item: ChannelObject, folder: Path) -> Path | None:
    """Return where a file is to lie; None for a folder, which is made."""
    parts = parts_of(item.stored.key, item.path)
    target = folder.joinpath(*parts)
    if item.path.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
    return target if parts and not item.path.endswith("/") else None


@contextmanager
def explained(key: str, path: str) -> Iterator[None]:
    """Turn what goes wrong with one file into a DownloadError."""
    try:
        yield
    except OutsideError as error:
        raise DownloadError(str(error)) from error
    except FileExistsError as error:
        text = f"{path} would be a file and a folder, or two objects at once"
        raise DownloadError(text) from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise DownloadError(f"{path} would be a file and a folder at once") from error
    except FileNotFoundError as error:
        raise DownloadError(f"{printed(key)} was deleted while it was read") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # it waits for space
        raise DownloadError(f"{printed(key)}: {error.strerror}") from error


def link(s3: Source, stored: StoredObject, target: Path) -> Staged:
    """Put an object's content at a path; DownloadError when it has not the size that it should."""
    linked = (s3.s3 if isinstance(s3, Inputs) else s3).link(stored, target)
    size = target.stat().st_size
    if size != linked.size:
        raise DownloadError(
            f"The content of s3://{linked.bucket}/{printed(linked.key)} is damaged: "
            f"it has {size:,} bytes instead of {linked.size:,}"
        )
    return Staged(target, linked)


def parts_of(key: str, path: str, *, strict: bool = False) -> list[str]:
    """Return the names on the way to a file; DownloadError when a key can't be one.

    strict: empty names are none either.
    """
    parts = [part for part in path.split("/") if part or strict]
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise DownloadError(f"The key {printed(key)} is not a path below a folder")
    return parts


def printed(key: str) -> str:
    """Return a key so that a message can have it: what can't be printed is escaped, and it ends."""
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= 256 else f"{text[:256]}…"


def same_file(one: Path, other: Path) -> bool:
    """Return whether both are the same file."""
    return one.exists() and other.exists() and os.path.samefile(one, other)
