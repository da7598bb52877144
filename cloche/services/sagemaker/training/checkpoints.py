"""Checkpoints: a folder of the job that is kept in step with a prefix of S3.

What lies under the prefix is put into the folder before the script starts; what the script writes
there goes to S3 while it runs and once more when it has ended ("Use checkpoints in Amazon
SageMaker"). Deletions are not carried over, in either direction. Several hosts, and several jobs,
may share a prefix: each sends only what it wrote itself. What TensorBoard is to show
(TensorBoardOutputConfig) and the tensors that smdebug collects (DebugHookConfig) go the same way,
to prefixes of the job's own, and are not restored.

The script may be writing while the folder is read, and may be hostile: everything is opened by
descriptors, no symbolic link is followed, and a file is sent only when it did not change while it
was copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import atomic, beneath, executors
from cloche.core.errors import AwsError
from cloche.engine import Engine, Mount
from cloche.records.errors import StorageFull, storage_full
from cloche.services.sagemaker.names import Request
from cloche.services.sagemaker.s3_objects import (
    DownloadError,
    Staged,
    parts_of,
    printed,
    require_bucket,
    split_uri,
)
from cloche.services.sagemaker.training.inputs import check
from cloche.services.sagemaker.training.output_archive import BOUNDS, HOLES, too_much

if TYPE_CHECKING:
    from cloche.services.s3 import ActingS3, StoredObject

DEFAULT_PATH = "/opt/ml/checkpoints"
TENSORBOARD_PATH = "/opt/ml/output/tensorboard"  # the default of LocalPath, as in the SDK
TENSORS_PATH = "/opt/ml/output/tensors"  # API reference, DebugHookConfig
CONFIGS = ("CheckpointConfig", "TensorBoardOutputConfig", "DebugHookConfig")
EVERY_S = 2.0  # between two looks at a folder
SHARE = 0.05  # of the time, at the most, is spent on looking at a folder
SLICE_S = 5.0  # that a look sends files for; what is left comes with the next one
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

# AWS's agent leaves these out of checkpoints (sagemaker-xgboost-container, checkpointing.py).
IGNORED = ".sagemaker-ignore"
# smdebug renames a file when it is whole (core/access_layer/file.py); its index names event files.
TEMPORARY = ".tmp"
INDEX = ("index/", "training_job_end.ts")

State = tuple[int, int]  # a file's size in bytes and time of change in nanoseconds


@dataclass(frozen=True, slots=True)
class SyncedFolder:
    """What is kept in step: `prefix` ends with a slash (or is empty), `path` is the job's.

    `name` is that of files outside; `default`: where it lies beneath `/opt/ml` with no mount.
    Files with these ends to their names are being written, and are never sent; those that begin as
    in `last` name others, and are sent after them.
    """

    bucket: str
    prefix: str
    path: str
    name: str = "checkpoints"
    default: str = DEFAULT_PATH
    restored: bool = True
    unfinished: tuple[str, ...] = (IGNORED,)
    last: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A file that is in S3 as it is here."""

    size: int
    mtime_ns: int
    etag: str


def places(request: Request, job: str) -> list[SyncedFolder]:
    """Return what a job of this name has kept in step with S3."""
    found = []
    if config := request.get("CheckpointConfig"):
        found.append(SyncedFolder(*split_folder(config["S3Uri"]), local(config, DEFAULT_PATH)))
    if config := request.get("TensorBoardOutputConfig"):
        found.append(output(config, job, "tensorboard", TENSORBOARD_PATH))
    if config := request.get("DebugHookConfig"):
        found.append(output(config, job, "debug", TENSORS_PATH))
    return found


def output(config: Request, job: str, kind: str, path: str) -> SyncedFolder:
    """Return where a kind of output goes; `latest_job_…_artifacts_path` of the SDK looks there."""
    bucket, prefix = split_folder(f"{config['S3OutputPath'].rstrip('/')}/{job}")
    inside = local(config, path)
    return SyncedFolder(
        bucket,
        f"{prefix}{kind}-output/",
        inside,
        kind,
        path,
        restored=False,
        unfinished=(IGNORED, TEMPORARY),
        last=INDEX if kind == "debug" else (),
    )


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


def folder(place: SyncedFolder, ml: Path) -> Path:
    """Return the folder outside; `ml` is what the host sees as `/opt/ml`."""
    if place.path == place.default:
        return ml / place.default.removeprefix("/opt/ml/")
    return ml.parent / place.name


def elsewhere(found: Sequence[SyncedFolder], ml: Path) -> list[Path]:
    """Return the folders that lie outside of `/opt/ml`."""
    return [folder(at, ml) for at in found if at.path != at.default]


def mounts(found: Sequence[SyncedFolder], ml: Path, engine: Engine) -> list[Mount]:
    """Return the mounts that folders elsewhere than by default need."""
    outside = [at for at in found if at.path != at.default]
    return [Mount(engine.stage(folder(at, ml)), at.path, "rw", volume=True) for at in outside]


def restore(s3: ActingS3, found: Sequence[SyncedFolder], mls: Sequence[Path]) -> None:
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


def restore_host(s3: ActingS3, at: SyncedFolder, ml: Path) -> None:
    """Put what lies in S3 into one host's folder."""
    index = Index(index_of(at, ml))
    for stored in s3.list(at.bucket, at.prefix):
        relative = stored.key[len(at.prefix) :]
        before = index.known.get(relative)
        if before is not None and before.etag == stored.etag:
            continue
        if relative.endswith("/") or not relative:
            continue  # a folder's marker
        try:
            target = folder(at, ml).joinpath(*parts_of(stored.key, relative, strict=True))
            write_known(index, relative, fetch(s3, stored, target))
        except FileNotFoundError:
            continue  # deleted or replaced since it was listed
        except OSError as error:
            if storage_full(error):
                raise StorageFull from error
            raise DownloadError(f"{printed(stored.key)}: {error.strerror}") from error


def fetch(s3: ActingS3, stored: StoredObject, target: Path) -> Known:
    """Copy an object's content: the script may write to it, and S3 must not change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(s3.content(stored), target)
    check(Staged(target, stored))
    seconds = stored.modified.timestamp()
    os.utime(target, (seconds, seconds))
    found = target.stat()
    return Known(found.st_size, found.st_mtime_ns, stored.etag)


class Index:
    """Which files of a host S3 has as they are here: a line for each change, the last one counts.

    It is a help, not the truth: without it a file is compared with its object.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.known = path, 0, dict[str, Known]()
        whole = True
        try:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    self.lines += 1
                    try:
                        name, *values = json.loads(line)
                        self.known[name] = Known(*values)
                    except (ValueError, TypeError):
                        whole = False  # the server died while it was written
        except FileNotFoundError:
            return
        if not whole:
            self.write()

    def note(self, name: str, known: Known) -> None:
        """Write down a file's state."""
        self.known[name] = known
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self.line(name, known))
        self.lines += 1
        if self.lines > 2 * len(self.known) + 1000:
            self.write()

    def write(self) -> None:
        """Replace the file by what is known."""
        content = "".join(self.line(*each) for each in self.known.items())
        atomic.write(self.path, content.encode())
        self.lines = len(self.known)

    @staticmethod
    def line(name: str, known: Known) -> str:
        """Return what stands for a file's state."""
        return f"{json.dumps([name, known.size, known.mtime_ns, known.etag])}\n"


def index_of(at: SyncedFolder, ml: Path) -> Path:
    """Return where a host's index lies: the script sees nothing of it."""
    return ml.parent / f"{at.name}.index"


def write_known(index: Index, name: str, known: Known) -> None:
    """Write down that S3 has a file as it is here."""
    index.note(name, known)


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What a look at a folder found, when, and how long it took."""

    at: datetime
    states: Mapping[str, State]
    took_s: float


@dataclass
class Checkpoints:
    """Sends such folders to S3. What it remembers saves work; after a restart it is found again."""

    looked: dict[tuple[str, Path], FolderScan] = field(default_factory=dict)
    indexes: dict[tuple[str, Path], Index] = field(default_factory=dict)

    async def sync(
        self, s3: ActingS3, found: Sequence[SyncedFolder], mls: Sequence[Path], now: datetime
    ) -> None:
        """Send what is new or changed and did not change since the last look; AwsError."""
        for at, ml in product(found, mls):
            before = self.looked.get((at.name, ml))
            pause_s = EVERY_S if before is None else max(EVERY_S, before.took_s / SHARE)
            if before is not None and (now - before.at).total_seconds() < pause_s:
                continue
            start = time.monotonic()
            states = await executors.FILES.run(scan_host, at, ml, repair=False)
            if states is None:
                continue  # it changes so much that no look gets through
            self.looked[at.name, ml] = FolderScan(now, states, time.monotonic() - start)
            if before is not None:
                still = whole(at, states, before.states)
                await self.send(s3, at, ml, still, start + SLICE_S)

    async def finish(
        self, s3: ActingS3, found: Sequence[SyncedFolder], mls: Sequence[Path]
    ) -> None:
        """Send what is left when the hosts have ended; AwsError. Twice does no harm."""
        for at, ml in product(found, mls):
            states = await executors.FILES.run(scan_host, at, ml, repair=True) or {}
            await self.send(s3, at, ml, whole(at, states, states))

    def forget(self, mls: Sequence[Path]) -> None:
        """Let go of what is remembered of a job."""
        for place in [place for place in {*self.looked, *self.indexes} if place[1] in mls]:
            self.looked.pop(place, None)
            self.indexes.pop(place, None)

    async def send(
        self,
        s3: ActingS3,
        at: SyncedFolder,
        ml: Path,
        states: Mapping[str, State],
        until: float = float("inf"),
    ) -> None:
        """Put the files that S3 does not have as they are; until: no more are begun then."""
        index = self.indexes.get((at.name, ml))
        if index is None:
            index = await executors.FILES.run(Index, index_of(at, ml))
            self.indexes[at.name, ml] = index
        staged = ml.parent / f"{at.name}.sent"
        changed = [
            (relative, state)
            for relative, state in sorted(states.items(), key=lambda each: order(at, each[0]))
            if (before := index.known.get(relative)) is None
            or (before.size, before.mtime_ns) != state
        ]
        for relative, state in changed:
            if time.monotonic() > until:
                break
            etag = await executors.FILES.run(copy_host, at, ml, relative, state, staged)
            if etag is None:
                continue
            key = f"{at.prefix}{relative}"
            # After a crash it may be there already, without our knowing.
            stored = await s3.put_once(at.bucket, key, staged, etag, state[0])
            await executors.FILES.run(write_known, index, relative, Known(*state, stored.etag))
        staged.unlink(missing_ok=True)


@contextmanager
def opened(at: SyncedFolder, ml: Path, *, repair: bool) -> Iterator[int | None]:
    """Give a descriptor of a host's folder; None: there is none, or the script left a link."""
    mounted = at.path != at.default
    try:
        with beneath.folder(folder(at, ml) if mounted else ml) as root:
            relative = at.default.removeprefix("/opt/ml/")
            tree = os.dup(root) if mounted else beneath.descend(root, relative, repair=repair)
            try:
                yield tree
            finally:
                if tree is not None:
                    os.close(tree)
    except FileNotFoundError:
        yield None


def scan_host(at: SyncedFolder, ml: Path, *, repair: bool) -> dict[str, State] | None:
    """Return what lies in a host's folder; None: it was moved meanwhile. AwsError: too much.

    repair: the hosts have ended, and all of it is to be readable.
    """
    with opened(at, ml, repair=repair) as root:
        try:
            return {} if root is None else scan(root, repair=repair)
        except beneath.Moved:
            return None
        except beneath.TooMuch as error:
            raise too_much(f"{at.path}: {error.strerror}") from error


def scan(root: int, *, repair: bool = False) -> dict[str, State]:
    """Return the plain files beneath root with their states; follows no link."""
    return {
        entry.path: (entry.status.st_size, entry.status.st_mtime_ns)
        for entry in beneath.walk(root, BOUNDS, repair=repair)
        if stat.S_ISREG(entry.status.st_mode) and is_key(entry.path)
    }


def whole(
    at: SyncedFolder, states: Mapping[str, State], before: Mapping[str, State]
) -> Mapping[str, State]:
    """Return the files that are complete by two looks at them, and by their names.

    What names other files waits while there is one that it may name and that is not complete.
    """
    finished = {name: s for name, s in states.items() if not name.endswith(at.unfinished)}
    still = {name: state for name, state in finished.items() if before.get(name) == state}
    if at.last and any(n not in still and not n.startswith(at.last) for n in finished):
        return {name: state for name, state in still.items() if not name.startswith(at.last)}
    return still


def order(at: SyncedFolder, name: str) -> tuple[bool, str]:
    """Return what files are sent in the order of."""
    return bool(at.last) and name.startswith(at.last), name


def is_key(name: str) -> bool:
    """Return whether S3 can have such a key."""
    try:
        return len(name.encode()) <= KEY_LIMIT
    except UnicodeEncodeError:
        return False


def copy_host(at: SyncedFolder, ml: Path, relative: str, state: State, target: Path) -> str | None:
    """Copy a file of a host as `copy_whole` does."""
    with opened(at, ml, repair=False) as root:
        try:
            return None if root is None else copy_whole(root, relative, state, target)
        except OSError as error:
            if storage_full(error):
                raise StorageFull from error
            raise


def copy_whole(root: int, relative: str, state: State, target: Path) -> str | None:
    """Copy a file as it was in this state and return its MD5; None when it is not so any more.

    AwsError: it is all but empty, and would fill the disk.
    """
    try:
        descriptor = beneath.open_file(root, relative)
    except OSError:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with os.fdopen(descriptor, "rb") as source:
        if state_of(descriptor) != state:
            return None
        if state[0] - os.fstat(descriptor).st_blocks * 512 > HOLES:
            raise AwsError("InsufficientDiskSpace", "Insufficient disk space", 400)
        with target.open("wb") as copy:
            left = state[0]
            while left and (piece := source.read(min(PIECE, left))):
                digest.update(piece)
                copy.write(piece)
                left -= len(piece)
        return digest.hexdigest() if state_of(descriptor) == state else None


def state_of(descriptor: int) -> State:
    """Return the state of an open file."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns
