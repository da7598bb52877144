"""Watching what a gang's files take of the disk.

Where they lie in a volume the kernel bounds and counts them: a look reads its numbers. Elsewhere
one look is a statvfs. Files are counted only when something changed on the disk, in slices between
which the gang's output is carried on, and for at most a twentieth of the time. The walk holds one
folder open, follows no link and comes back up only to the folder it came from: how deep and how
many folders are is all the same to it, whoever moves them meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
LOOK_S = 0.5
CALM_S = 30.0  # between walks of a gang that adds nothing while others do
SLICE_S = 0.004
PART = 200  # files
AT_MOST = 20  # the walk's part of the time is one of so many
HURRY_BYTES, HURRY_INODES = 64 << 20, 10_000  # unless so much was taken since it began
RESERVE_BYTES, RESERVE_INODES = 1 << 30, 200_000  # kept for the server's records…
RESERVE_PART = 20  # …but no more than one of so many parts of the disk
MATTERS = 16 << 20  # bytes, or inodes worth so many, below which ending a gang would help nobody
INODE = 4096  # bytes that an inode counts as when gangs are compared
OTHERS_MEASURE_S = 1.0
EXT4_OWN = 11  # inodes that a fresh ext4 has taken
LEFT = 16 << 10  # bytes below which a volume has no room
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Room:
    """What is free on the file system of a folder, and what part of it is the server's."""

    def __init__(self, folder: str) -> None:
        told = os.statvfs(folder)
        self.bytes, self.inodes = told.f_bavail * told.f_frsize, told.f_favail
        self.reserve = min(RESERVE_BYTES, told.f_blocks * told.f_frsize // RESERVE_PART)
        inodes = min(RESERVE_INODES, told.f_files // RESERVE_PART)
        # Some file systems make inodes as they need them, and tell of none.
        self.scarce = self.bytes < self.reserve or (told.f_files > 0 and self.inodes < inodes)


def tally(folder: str) -> Iterator[tuple[int, int]]:
    """Yield bytes and inodes of a tree, part by part."""
    try:
        here = os.open(folder, FOLDER)
    except OSError:
        return
    above: list[tuple[tuple[int, int], list[str]]] = []  # identity and what is left, level by level
    try:
        left: list[str] = []
        yield from entries(here, left)
        while True:
            if left:
                with contextlib.suppress(OSError):  # it has gone, or is a folder no more
                    inner = os.open(left.pop(), FOLDER, dir_fd=here)
                    above.append((identity(here), left))
                    os.close(here)
                    here, left = inner, []
                    yield from entries(here, left)
            elif above:
                came_from, left = above.pop()
                up = os.open("..", FOLDER, dir_fd=here)
                os.close(here)
                here = up
                if identity(here) != came_from:
                    return  # it was moved: the next walk will see it
            else:
                return
    except OSError:
        return
    finally:
        os.close(here)


def entries(folder: int, folders: list[str]) -> Iterator[tuple[int, int]]:
    """Yield bytes and inodes of a folder and the files in it; add the folders in it to a list."""
    yield os.fstat(folder).st_blocks * 512, 1
    total, count = 0, 0
    with os.scandir(folder) as listing:
        for entry in listing:
            with contextlib.suppress(OSError):
                told = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(told.st_mode):
                    folders.append(entry.name)
                else:  # a file with several names counts once, in parts
                    total += told.st_blocks * 512 // max(1, told.st_nlink)
                    count += 1
            if count >= PART:
                yield total, count
                total, count = 0, 0
    yield total, count


def identity(folder: int) -> tuple[int, int]:
    """Return what tells an open folder from all others."""
    told = os.fstat(folder)
    return told.st_dev, told.st_ino


class ProcessDisk:
    """The file system of its own that has a process's files."""

    def __init__(self, place: str, image: str) -> None:
        self.image = image
        self.opened = os.open(place, FOLDER)
        self.bytes = self.inodes = self.taken = 0
        self.full = False

    def read(self) -> None:
        """Look at what it holds, and at what its image takes of the disk."""
        told = os.fstatvfs(self.opened)
        self.bytes = (told.f_blocks - told.f_bfree) * told.f_frsize
        self.inodes = max(0, told.f_files - told.f_ffree - EXT4_OWN)
        self.full = told.f_bavail * told.f_frsize < LEFT or told.f_favail == 0
        with contextlib.suppress(OSError):
            self.taken = os.stat(self.image).st_blocks * 512

    @property
    def weight(self) -> int:
        """What it takes of the disk, and will take: not all that is written is there yet."""
        return max(self.bytes, self.taken) + INODE

    @property
    def pending(self) -> int:
        """What it will take."""
        return max(0, self.bytes - self.taken)

    def lost(self) -> bool:
        """Write all to the disk; tell whether some of it found no place there."""
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.syncfs(self.opened) != 0)


class Tree:
    """The folders that one process of a gang writes, and what they were found to hold."""

    def __init__(self, folders: list[str]) -> None:
        self.folders = folders  # that are counted
        self.volume: ProcessDisk | None = None  # of all others
        self.pids: Callable[[], list[str]] = list  # /proc's folders of the processes that write
        self.bytes = self.inodes = 0
        self.walk: Iterator[tuple[int, int]] | None = None
        self.sums = [0, 0]

    def begin(self) -> None:
        """Start counting again."""
        self.walk = (part for folder in self.folders for part in tally(folder))
        self.sums = [0, 0]

    @property
    def mib(self) -> int:
        """What its files take, as far as they are counted."""
        volume = 0 if self.volume is None else self.volume.bytes
        return (max(self.bytes, self.sums[0]) + volume) // MIB

    @property
    def files(self) -> int:
        """How many files and folders there are, as far as they are counted."""
        volume = 0 if self.volume is None else self.volume.inodes
        return max(self.inodes, self.sums[1]) + volume

    def excess(self, most_mib: int, most: int) -> str | None:
        """Say what it takes too much of; None: nothing. The bounds may be 0: there is none."""
        if most_mib and self.mib > most_mib:
            return f"holds {self.mib} MiB of files; it may have {most_mib} MiB"
        if most and self.files > most:
            return f"holds {self.files} files and folders; it may have {most}"
        if self.volume is not None and self.volume.full:
            return self.on_a_full_disk()
        return None

    def on_a_full_disk(self) -> str:
        """Say what it takes where nobody has more."""
        return f"holds {self.mib} MiB in {self.files} files, and the disk is full"

    def count_nameless(self) -> None:
        """Add the files that have no name any more and are open: they take space all the same."""
        found: dict[tuple[int, int], int] = {}
        for folder in self.pids():
            with contextlib.suppress(OSError):
                for number in os.listdir(f"{folder}/fd"):
                    with contextlib.suppress(OSError):
                        told = os.stat(f"{folder}/fd/{number}")
                        if stat.S_ISREG(told.st_mode) and told.st_nlink == 0:
                            found[told.st_dev, told.st_ino] = told.st_blocks * 512
        device = os.stat(".").st_dev
        self.bytes += sum(size for (where, _), size in found.items() if where == device)

    def go_on(self, until: float) -> bool:
        """Count on, for a moment; tell whether all is counted."""
        assert self.walk is not None
        for size, count in self.walk:
            self.sums[0] += size
            self.sums[1] += count
            if time.monotonic() > until:
                return False
        self.walk = None
        self.bytes, self.inodes = self.sums
        return True

    @property
    def weight(self) -> int:
        """What it takes of the disk, in bytes."""
        volume = 0 if self.volume is None else self.volume.weight
        return self.bytes + self.inodes * INODE + volume


class DiskWatch:
    """Looks after a gang's use of the disk. In the run directory, `used` tells it to the others."""

    def __init__(self, trees: list[Tree]) -> None:
        self.trees = trees
        self.look_at = 0.0  # monotonic
        self.walk_at = 0.0
        self.begun = self.spent = 0.0
        self.calm_s = LOOK_S  # between walks; longer each time that one finds nothing new
        self.walking: list[Tree] = []
        self.changed_at: tuple[int, int] | None = None  # what was free when the last walk began
        self.scarce_since: float | None = None
        self.was_scarce = False  # ever
        self.weight = 0  # as of the last whole walk
        self.measured_at: float | None = None  # the last whole walk's begin
        self.told = os.open("used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._tell(0)

    def look(self, now: float) -> None:
        """Look at the disk, and count the gang's files if that is due."""
        room = Room(".")
        self.look_at = now + LOOK_S
        for volume in self.volumes:
            volume.read()
        # What is on its way to the disk is taken.
        pending = sum(volume.pending for volume in self.volumes)
        room.scarce = room.scarce or (pending > 0 and room.bytes - pending < room.reserve)
        self.was_scarce = self.was_scarce or room.scarce
        if not room.scarce:
            self.scarce_since = None
        elif self.scarce_since is None:
            self.scarce_since = self.walk_at = now
        if not any(tree.folders for tree in self.trees):
            self._measured(now)
            return
        free = (room.bytes, room.inodes)
        before = self.changed_at or free
        hurry = room.scarce or before[0] - free[0] > HURRY_BYTES
        hurry = hurry or before[1] - free[1] > HURRY_INODES
        due = hurry or (now >= self.walk_at and free != self.changed_at)
        if not self.walking and due:
            self.changed_at, self.begun, self.spent = free, now, 0.0
            self.walking = list(self.trees)
            for tree in self.walking:
                tree.begin()
        if self.walking:
            self._walk(now, hurry=hurry)

    def _walk(self, now: float, *, hurry: bool) -> None:
        """Count on, for a moment; then others have their turn."""
        cpu_s, begun = time.thread_time(), time.monotonic()
        while self.walking and self.walking[0].go_on(begun + SLICE_S):
            del self.walking[0]
        self.spent += time.thread_time() - cpu_s
        if self.walking:
            took = time.monotonic() - begun
            self.look_at = now + (took if hurry else took * AT_MOST)
        else:
            for tree in self.trees:
                tree.count_nameless()
            before = self.weight
            self._measured(self.begun)
            self.calm_s = min(CALM_S, self.calm_s * 2) if before == self.weight else LOOK_S
            self.walk_at = now + max(self.calm_s, self.spent * AT_MOST)

    @property
    def volumes(self) -> list[ProcessDisk]:
        """The volumes that the gang has."""
        return [tree.volume for tree in self.trees if tree.volume is not None]

    def near(self) -> bool:
        """Tell whether what is on its way to the disk, of all volumes, might not find place there.

        Of others' it is known only that the kernel holds a fifth of the memory at the most.
        """
        room, memory = Room("."), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        pending = sum(volume.pending for volume in self.volumes)
        return self.was_scarce or room.bytes - pending < room.reserve + memory // 5

    def _measured(self, begun: float) -> None:
        """Tell the others what is known now that all is counted."""
        weight, first = sum(tree.weight for tree in self.trees), self.measured_at is None
        self.measured_at = begun
        if first or weight != self.weight:
            self.weight = weight
            self._tell(weight)

    def _tell(self, weight: int) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self.told, b"%20d\n" % weight, 0)

    def end(self) -> None:
        """Tell the others that this gang takes no more: it has ended."""
        self._tell(0)

    def greediest(self, now: float) -> Tree | None:
        """Return the tree to be ended: the reserve is touched, and no gang takes more than this."""
        since, measured = self.scarce_since, self.measured_at
        if since is None or measured is None or measured < since:
            return None
        if now < since + OTHERS_MEASURE_S:
            return None
        own = sum(tree.weight for tree in self.trees)
        if own < MATTERS or any(weight > own and lives(run) for run, weight in others()):
            return None
        return max(self.trees, key=lambda tree: tree.weight)


def others() -> list[tuple[str, int]]:
    """Return what the gangs of this engine said that they take, by run directory."""
    found = []
    for name in os.listdir(".."):
        with contextlib.suppress(OSError, ValueError), open(f"../{name}/used") as file:
            found.append((f"../{name}", int(file.read(32))))
    return found


def lives(run: str) -> bool:
    """Tell whether a gang has a supervisor."""
    try:
        lock = os.open(f"{run}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
