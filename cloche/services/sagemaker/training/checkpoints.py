"""Checkpoints: a folder of the job that is kept in step with a prefix of S3.

What lies under the prefix is put into the folder before the script starts; what the script writes
there goes to S3 while it runs and once more when it has ended ("Use checkpoints in Amazon
SageMaker"). Deletions are not carried over, in either direction. Several hosts, and several jobs,
may share a prefix: each sends only what it wrote itself.

The script may be writing while the folder is read, and may be hostile: no symbolic link is
followed, and a file is sent only when it did not change while it was copied.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.engine import Mount
from cloche.services.sagemaker.records import Request
from cloche.services.sagemaker.training.channels import DownloadError, require_bucket, split_uri
from cloche.services.sagemaker.training.outcome import inside, make_readable

if TYPE_CHECKING:
    from cloche.services.s3 import S3

DEFAULT_PATH = "/opt/ml/checkpoints"
EVERY_S = 2.0  # between two looks at a folder
PIECE = 1 << 20  # bytes copied at a time
KEY_LIMIT = 900  # bytes of a name; with the prefix, S3 takes 1,024
# Folders of the system, which a mount would hide (and what lies in them).
TAKEN = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
# Folders that the platform itself fills.
OURS = ("/opt", "/opt/ml", "/opt/ml/input", "/opt/ml/model", "/opt/ml/output", "/opt/ml/code")

State = tuple[int, int]  # a file's size in bytes and time of change in nanoseconds


@dataclass(frozen=True, slots=True)
class Place:
    """Where checkpoints lie: `prefix` ends with a slash (or is empty), `path` is the job's."""

    bucket: str
    prefix: str
    path: str


@dataclass(frozen=True, slots=True)
class Known:
    """A file that is in S3 as it is here."""

    size: int
    mtime_ns: int
    etag: str


def place(request: Request) -> Place | None:
    """Return where a job's checkpoints lie; None when it has no CheckpointConfig."""
    config = request.get("CheckpointConfig")
    if not config:
        return None
    bucket, key = split_uri(config["S3Uri"])
    folder = key.rstrip("/")
    path = os.path.normpath(config.get("LocalPath") or DEFAULT_PATH)
    return Place(bucket, f"{folder}/" if folder else "", path)


def checked(config: Request) -> None:
    """Refuse a CheckpointConfig that could not be made true."""
    split_uri(config["S3Uri"])
    sent = config.get("LocalPath") or DEFAULT_PATH
    path = os.path.normpath(sent)
    taken = path in ("/", "//", *OURS) or any(f"{path}/".startswith(f"{t}/") for t in TAKEN)
    if not path.startswith("/") or taken:
        raise AwsError(
            "ValidationException",
            f"Invalid CheckpointConfig.LocalPath: {sent}. It must be an absolute path, and none "
            "that the system or the training job itself uses; leave it out for "
            f"{DEFAULT_PATH}.",
        )


def folder(place: Place, ml: Path) -> Path:
    """Return the folder outside; `ml` is what the host sees as `/opt/ml`."""
    return ml / "checkpoints" if place.path == DEFAULT_PATH else ml.parent / "checkpoints"


def mounts(request: Request, ml: Path) -> list[Mount]:
    """Return the mount that a LocalPath other than the default needs."""
    at = place(request)
    if at is None or at.path == DEFAULT_PATH:
        return []
    return [Mount(folder(at, ml), at.path, "rw")]


def restore(s3: S3, request: Request, mls: Sequence[Path]) -> None:
    """Put what lies in S3 into every host's folder; DownloadError when that can't be.

    What is there already is not copied again: while a job waits for its turn, this is called
    once more just before it starts. Blocks: call it from a thread.
    """
    at = place(request)
    if at is None:
        return
    require_bucket(s3, at.bucket)
    for ml in mls:
        target = folder(at, ml)
        target.mkdir(parents=True, exist_ok=True)
        known = read_known(ml)
        for stored in s3.list(at.bucket, at.prefix):
            relative = stored.key[len(at.prefix) :]
            before = known.get(relative)
            if before is not None and before.etag == stored.etag:
                continue
            parts = relative.split("/")
            if relative.endswith("/") or not relative:
                continue  # a folder's marker
            if any(part in ("", ".", "..") for part in parts):
                raise DownloadError(f"The key {stored.key} is no path beneath a folder")
            try:
                known[relative] = fetch(stored.path, target.joinpath(*parts), stored.modified)
            except FileNotFoundError:
                continue  # deleted or replaced since it was listed
            except OSError as error:
                raise DownloadError(f"{stored.key}: {error.strerror}") from error
            known[relative] = Known(known[relative].size, known[relative].mtime_ns, stored.etag)
        write_known(ml, known)


def fetch(source: Path, target: Path, modified: datetime) -> Known:
    """Copy an object's content: the script may write to it, and S3 must not change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    seconds = modified.timestamp()
    os.utime(target, (seconds, seconds))
    found = target.stat()
    return Known(found.st_size, found.st_mtime_ns, "")


@dataclass
class Checkpoints:
    """Sends checkpoints to S3. What it remembers saves work; after a restart it is found anew."""

    s3: S3
    looked: dict[Path, tuple[datetime, Mapping[str, State]]] = field(default_factory=dict)

    async def sync(self, request: Request, mls: Sequence[Path], now: datetime) -> None:
        """Send what is new or changed and did not change since the last look; AwsError."""
        at = place(request)
        for ml in mls if at is not None else ():
            assert at is not None
            before = self.looked.get(ml)
            if before is not None and (now - before[0]).total_seconds() < EVERY_S:
                continue
            states = await asyncio.to_thread(scan, folder(at, ml))
            self.looked[ml] = (now, states)
            if before is not None:
                still = {name: s for name, s in states.items() if before[1].get(name) == s}
                await self.send(at, ml, still)

    async def finish(self, request: Request, mls: Sequence[Path]) -> None:
        """Send what is left when the hosts have ended; AwsError. Twice does no harm."""
        at = place(request)
        for ml in mls if at is not None else ():
            assert at is not None
            found = inside(ml.parent, str(folder(at, ml).relative_to(ml.parent)))
            if found is not None:
                await asyncio.to_thread(make_readable, found)
                await self.send(at, ml, await asyncio.to_thread(scan, found))

    def forget(self, mls: Sequence[Path]) -> None:
        """Let go of what is remembered of a job."""
        for ml in mls:
            self.looked.pop(ml, None)

    async def send(self, at: Place, ml: Path, states: Mapping[str, State]) -> None:
        """Put the files that S3 does not have as they are."""
        known = await asyncio.to_thread(read_known, ml)
        staged = ml.parent / "checkpoint"
        for relative, state in sorted(states.items()):
            before = known.get(relative)
            if before is not None and (before.size, before.mtime_ns) == state:
                continue
            etag = await asyncio.to_thread(copy_whole, folder(at, ml), relative, state, staged)
            if etag is None:
                continue
            key = f"{at.prefix}{relative}"
            stored = self.s3.find(at.bucket, key)
            # After a crash it may be there already, without our knowing.
            if stored is None or (stored.etag, stored.size) != (etag, state[0]):
                stored = await self.s3.put_file(at.bucket, key, staged)
            known[relative] = Known(*state, stored.etag)
            await asyncio.to_thread(write_known, ml, known)
        staged.unlink(missing_ok=True)


def scan(root: Path) -> dict[str, State]:
    """Return the plain files beneath root with their states; follows no link."""
    return dict(walk(root))


def walk(root: Path) -> Iterator[tuple[str, State]]:
    """Yield relative name and state of each plain file; what vanishes meanwhile is left out."""
    for here, _folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        for name in files:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                continue
            relative = os.path.relpath(os.path.join(here, name), root)
            if stat.S_ISREG(found.st_mode) and is_key(relative):
                yield relative, (found.st_size, found.st_mtime_ns)


def is_key(name: str) -> bool:
    """Return whether S3 can have such a key."""
    try:
        return len(name.encode()) <= KEY_LIMIT
    except UnicodeEncodeError:
        return False


def copy_whole(root: Path, relative: str, state: State, target: Path) -> str | None:
    """Copy a file as it was in this state and return its MD5; None when it is not so any more."""
    try:
        descriptor = open_beneath(root, relative)
    except OSError:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with os.fdopen(descriptor, "rb") as source:
        if state_of(descriptor) != state:
            return None
        with target.open("wb") as copy:
            while piece := source.read(PIECE):
                digest.update(piece)
                copy.write(piece)
        return digest.hexdigest() if state_of(descriptor) == state else None


def state_of(descriptor: int) -> State | None:
    """Return the state of an open file; None when it is no plain one."""
    found = os.fstat(descriptor)
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def open_beneath(root: Path, relative: str) -> int:
    """Open a file for reading, with no link followed on the way; OSError."""
    *folders, name = relative.split("/")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)


def read_known(ml: Path) -> dict[str, Known]:
    """Return which files of a host S3 has, as far as that was written down."""
    try:
        found = json.loads((ml.parent / "checkpoints.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: Known(*values) for name, values in found.items()}


def write_known(ml: Path, known: Mapping[str, Known]) -> None:
    """Write down which files of a host S3 has, whole or not at all."""
    text = json.dumps({name: [k.size, k.mtime_ns, k.etag] for name, k in known.items()})
    new = ml.parent / "checkpoints.json.new"
    new.write_text(text)
    os.replace(new, ml.parent / "checkpoints.json")
