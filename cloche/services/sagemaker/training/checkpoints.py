"""Checkpoints: a folder of the job that is kept in step with a prefix of S3.

What lies under the prefix is put into the folder before the script starts; what the script writes
there goes to S3 while it runs and once more when it has ended ("Use checkpoints in Amazon
SageMaker"). Deletions are not carried over, in either direction. Several hosts, and several jobs,
may share a prefix: each sends only what it wrote itself. What TensorBoard is to show
(TensorBoardOutputConfig) and the tensors that smdebug collects (DebugHookConfig) go the same way,
to prefixes of the job's own, and are not restored.

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
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.engine import Mount
from cloche.services.sagemaker.records import Request
from cloche.services.sagemaker.training.channels import DownloadError, require_bucket, split_uri
from cloche.services.sagemaker.training.outcome import inside, make_readable

if TYPE_CHECKING:
    from cloche.services.s3 import S3, StoredObject

DEFAULT_PATH = "/opt/ml/checkpoints"
TENSORBOARD_PATH = "/opt/ml/output/tensorboard"  # the default of LocalPath, as in the SDK
TENSORS_PATH = "/opt/ml/output/tensors"  # API reference, DebugHookConfig
CONFIGS = ("CheckpointConfig", "TensorBoardOutputConfig", "DebugHookConfig")
EVERY_S = 2.0  # between two looks at a folder
PIECE = 1 << 20  # bytes copied at a time
KEY_LIMIT = 900  # bytes of a name; with the prefix, S3 takes 1,024
# Folders of the system, which a mount would hide (and what lies in them).
TAKEN = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
# Folders that the platform itself fills.
OURS = (
    "/opt",
    "/opt/ml",
    "/opt/ml/input",
    "/opt/ml/model",
    "/opt/ml/output",
    "/opt/ml/code",
    "/opt/ml/sagemaker",
    "/opt/ml/sagemaker/warmpoolcache",
)

State = tuple[int, int]  # a file's size in bytes and time of change in nanoseconds


@dataclass(frozen=True, slots=True)
class Place:
    """What is kept in step: `prefix` ends with a slash (or is empty), `path` is the job's.

    `name` is that of files outside; `default`: where it lies beneath `/opt/ml` with no mount.
    """

    bucket: str
    prefix: str
    path: str
    name: str = "checkpoints"
    default: str = DEFAULT_PATH
    restored: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """A file that is in S3 as it is here."""

    size: int
    mtime_ns: int
    etag: str


def places(request: Request, job: str) -> list[Place]:
    """Return what a job of this name has kept in step with S3."""
    found = []
    if config := request.get("CheckpointConfig"):
        found.append(Place(*split_folder(config["S3Uri"]), local(config, DEFAULT_PATH)))
    if config := request.get("TensorBoardOutputConfig"):
        found.append(output(config, job, "tensorboard", TENSORBOARD_PATH))
    if config := request.get("DebugHookConfig"):
        found.append(output(config, job, "debug", TENSORS_PATH))
    return found


def output(config: Request, job: str, kind: str, path: str) -> Place:
    """Return where a kind of output goes; `latest_job_…_artifacts_path` of the SDK looks there."""
    bucket, prefix = split_folder(f"{config['S3OutputPath'].rstrip('/')}/{job}")
    inside = local(config, path)
    return Place(bucket, f"{prefix}{kind}-output/", inside, kind, path, restored=False)


def configuration(request: Request) -> dict[str, object]:
    """Return the files of `/opt/ml/input/config` by which smdebug finds out what to collect, and
    where to (smdebug.core.config_constants), by name.
    """
    found: dict[str, object] = {}
    if config := request.get("DebugHookConfig"):
        found["debughookconfig.json"] = {**config, "LocalPath": local(config, TENSORS_PATH)}
    if config := request.get("TensorBoardOutputConfig"):
        found["tensorboardoutputconfig.json"] = {"LocalPath": local(config, TENSORBOARD_PATH)}
    return found


def split_folder(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of an S3 URI, the prefix with a slash at its end (or empty)."""
    bucket, key = split_uri(uri)
    folder = key.rstrip("/")
    return bucket, f"{folder}/" if folder else ""


def local(config: Request, default: str) -> str:
    """Return where the folder lies inside."""
    return os.path.normpath(config.get("LocalPath") or default)


def checked(request: Request) -> None:
    """Refuse what CONFIGS names when it could not be made true."""
    for name in CONFIGS:
        path = (request.get(name) or {}).get("LocalPath") or DEFAULT_PATH
        norm = os.path.normpath(path)
        taken = norm in ("/", "//", *OURS) or any(f"{norm}/".startswith(f"{t}/") for t in TAKEN)
        if not norm.startswith("/") or taken:
            raise AwsError(
                "ValidationException",
                f"Invalid {name}.LocalPath: {path}. It must be an absolute path, and none that "
                "the system or the training job itself uses; leave it out for the default.",
            )
    names = [name for name in CONFIGS if request.get(name)]
    paths = dict[str, str]()
    for name, place in zip(names, places(request, "job"), strict=True):
        if other := paths.get(place.path):
            raise AwsError(
                "ValidationException", f"{other} and {name} have the same LocalPath: {place.path}"
            )
        paths[place.path] = name


def folder(place: Place, ml: Path) -> Path:
    """Return the folder outside; `ml` is what the host sees as `/opt/ml`."""
    if place.path == place.default:
        return ml / place.default.removeprefix("/opt/ml/")
    return ml.parent / place.name


def mounts(found: Sequence[Place], ml: Path) -> list[Mount]:
    """Return the mounts that folders elsewhere than by default need."""
    return [Mount(folder(at, ml), at.path, "rw") for at in found if at.path != at.default]


def restore(s3: S3, found: Sequence[Place], mls: Sequence[Path]) -> None:
    """Put what lies in S3 into every host's folders; DownloadError when that can't be.

    What is there already is not copied again: while a job waits for its turn, this is called
    once more just before it starts. Blocks: call it from a thread.
    """
    for at in found:
        require_bucket(s3, at.bucket)
        for ml in mls:
            folder(at, ml).mkdir(parents=True, exist_ok=True)
            if at.restored:
                restore_host(s3, at, ml)


def restore_host(s3: S3, at: Place, ml: Path) -> None:
    """Put what lies in S3 into one host's folder."""
    known = read_known(at, ml)
    for stored in s3.list(at.bucket, at.prefix):
        relative = stored.key[len(at.prefix) :]
        before = known.get(relative)
        if before is not None and before.etag == stored.etag:
            continue
        if relative.endswith("/") or not relative:
            continue  # a folder's marker
        parts = relative.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise DownloadError(f"The key {stored.key} is no path beneath a folder")
        try:
            known[relative] = fetch(stored, folder(at, ml).joinpath(*parts))
        except FileNotFoundError:
            continue  # deleted or replaced since it was listed
        except OSError as error:
            raise DownloadError(f"{stored.key}: {error.strerror}") from error
    write_known(at, ml, known)


def fetch(stored: StoredObject, target: Path) -> Known:
    """Copy an object's content: the script may write to it, and S3 must not change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(stored.path, target)
    seconds = stored.modified.timestamp()
    os.utime(target, (seconds, seconds))
    found = target.stat()
    return Known(found.st_size, found.st_mtime_ns, stored.etag)


@dataclass
class Checkpoints:
    """Sends such folders to S3. What it remembers saves work; after a restart it is found anew."""

    s3: S3
    looked: dict[tuple[str, Path], tuple[datetime, Mapping[str, State]]] = field(
        default_factory=dict
    )

    async def sync(self, found: Sequence[Place], mls: Sequence[Path], now: datetime) -> None:
        """Send what is new or changed and did not change since the last look; AwsError."""
        for at, ml in product(found, mls):
            before = self.looked.get((at.name, ml))
            if before is not None and (now - before[0]).total_seconds() < EVERY_S:
                continue
            states = await asyncio.to_thread(scan, folder(at, ml))
            self.looked[at.name, ml] = (now, states)
            if before is not None:
                still = {name: s for name, s in states.items() if before[1].get(name) == s}
                await self.send(at, ml, still)

    async def finish(self, found: Sequence[Place], mls: Sequence[Path]) -> None:
        """Send what is left when the hosts have ended; AwsError. Twice does no harm."""
        for at, ml in product(found, mls):
            root = inside(ml.parent, str(folder(at, ml).relative_to(ml.parent)))
            if root is not None:
                await asyncio.to_thread(make_readable, root)
                await self.send(at, ml, await asyncio.to_thread(scan, root))

    def forget(self, mls: Sequence[Path]) -> None:
        """Let go of what is remembered of a job."""
        for place in [place for place in self.looked if place[1] in mls]:
            del self.looked[place]

    async def send(self, at: Place, ml: Path, states: Mapping[str, State]) -> None:
        """Put the files that S3 does not have as they are."""
        known = await asyncio.to_thread(read_known, at, ml)
        staged = ml.parent / f"{at.name}.sent"
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
            await asyncio.to_thread(write_known, at, ml, known)
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


def read_known(at: Place, ml: Path) -> dict[str, Known]:
    """Return which files of a host S3 has, as far as that was written down."""
    try:
        found = json.loads((ml.parent / f"{at.name}.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: Known(*values) for name, values in found.items()}


def write_known(at: Place, ml: Path, known: Mapping[str, Known]) -> None:
    """Write down which files of a host S3 has, whole or not at all."""
    text = json.dumps({name: [k.size, k.mtime_ns, k.etag] for name, k in known.items()})
    new = ml.parent / f"{at.name}.json.new"
    new.write_text(text)
    os.replace(new, ml.parent / f"{at.name}.json")
