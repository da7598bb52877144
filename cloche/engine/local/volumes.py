"""Volumes: a sandbox's files lie in a file system of their own, of the size that they may have.

An image of ext4 in the run directory, mounted by a loop device at the host's private folder: the
kernel refuses what goes beyond, at once and not at the next look. What is in a fresh one is kept
(mkfs takes 50 ms, to write it 1 ms). Where that can't be had, files are watched.

The mounts are the server's own, and go with it. A supervisor has its gang's, so what runs goes on;
who starts next mounts the images of all gangs that are known.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cloche.core import beneath
from cloche.engine import GangSpec
from cloche.engine.local.loop_devices import (
    BLOCK,
    CONTROL,
    SYSTEM_PATH,
    Contents,
    mount_again,
    mount_image,
    read_image,
    write_image,
)
from cloche.engine.local.sandbox import FILES_PER_MIB, Volume, host_folder, path_of
from cloche.engine.local.supervisor import mounts
from cloche.engine.local.supervisor.disk import Room
from cloche.engine.local.supervisor.namespaces import MS_BIND, mount

logger = logging.getLogger("cloche.engine")
ALL = beneath.WalkBounds(entries=1 << 40, path_bytes=1 << 40)
MIB = 1 << 20
INODE = 256
GROUP_MIB = 128  # of which each has tables of its own
OWN_MIB = 16  # at the most, and 2%, that nothing but ext4's tables may take
MORE = 2  # MiB beyond what is allowed: who takes them has taken too much
LEAST_MIB = 64  # below, a volume is no use
STEP_MIB = 256  # of sizes that the disk dictates
TEMPLATES = 8  # that are kept
# Nothing of this or that mkfs's own choice: the kernel has to know it.
FEATURES = (
    "none,extent,filetype,dir_index,sparse_super,large_file,huge_file,uninit_bg,flex_bg,"
    "dir_nlink,extra_isize,64bit"
)
FULL = (errno.ENOSPC, errno.EDQUOT)


class Volumes:
    """Makes and removes the volumes of an engine's sandboxes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mkfs = shutil.which("mkfs.ext4", path=SYSTEM_PATH)
        self.lack = ""  # why the last one could not be made
        if os.geteuid() != 0:
            self.lack = "only root may mount volumes"
        elif self.mkfs is None:
            self.lack = "there is no mkfs.ext4"
        elif not os.path.exists(CONTROL):
            self.lack = f"there is no {CONTROL}"
        elif mounts.here.machine is None:
            self.lack = "this process has no mounts of its own"
        self.possible = not self.lack

    def begin(self, gang: GangSpec, run: Path, pool: Executor) -> dict[str, Future[Volume | None]]:
        """Begin to mount a volume for each host; None: none can be had for it."""
        sources = [m.source for process in gang.processes for m in process.mounts]
        begun: dict[str, Future[Volume | None]] = {}
        for process in gang.processes if self.possible else ():
            carried = {
                f"mount-{number}": path_of(m.source)
                for number, m in enumerate(process.mounts)
                # What several hosts see can't be in one's volume.
                if m.volume and m.mode == "rw" and sources.count(m.source) == 1
                if path_of(m.source).is_dir()
            }
            if process.disk_mib:
                arguments = (run, process.name, process.disk_mib, carried)
                begun[process.name] = pool.submit(self.make, *arguments)
        return begun

    def make(self, run: Path, host: str, mib: int, carried: Mapping[str, Path]) -> Volume | None:
        """Mount a volume of `mib` at a host's folder in the run directory; None: none can be had.

        carried: name in there -> a folder that is copied in and then seen in both places.
        """
        volume = Volume(f"disk-{host}.img", {name: str(path) for name, path in carried.items()})
        place = host_folder(run, host)
        try:
            size = self.allowed(mib)
            if size < min(mib, LEAST_MIB):
                return None  # the disk is full, which others say
            place.mkdir()
            image = write_image(run / volume.image, *fresh(str(self.mkfs), size))
            try:
                mount_image(image, place)
            finally:
                os.close(image)
            for name, source in carried.items():
                copy_tree(source, place / name)
            for name, source in carried.items():
                mount(str(place / name), str(source), None, MS_BIND)
        except (OSError, subprocess.SubprocessError) as error:
            mounts.unmount([p for p in mounts.volumes(str(run)) if within(p, place, volume)])
            (run / volume.image).unlink(missing_ok=True)
            with suppress(OSError):
                place.rmdir()
            if not (isinstance(error, OSError) and error.errno in FULL):
                self.lack = str(error)
                logger.warning("%s has no volume, its files are watched: %s", run.name, error)
            return None
        self.lack = ""
        return volume

    def allowed(self, mib: int) -> int:
        """Return the MiB of a volume that may have `mib`: no more than the disk has to give."""
        room = Room(str(self.root))
        left = (room.bytes - room.reserve) // MIB
        if mib <= left:
            return mib
        return left // STEP_MIB * STEP_MIB if left >= STEP_MIB else left


@lru_cache(TEMPLATES)
def fresh(mkfs: str, mib: int) -> tuple[int, Contents]:
    """Return size and contents of a fresh image for files of so many MiB."""
    with tempfile.TemporaryDirectory(prefix="cloche-volume-") as folder:
        image = Path(folder) / "image"
        with image.open("xb") as file:
            file.truncate(image_size(mib))
        inodes = str((mib + MORE) * FILES_PER_MIB)
        layout = ["-b", str(BLOCK), "-I", str(INODE), "-N", inodes, "-m", "0", "-O", FEATURES]
        how = ["-q", "-F", "-E", "lazy_itable_init=1,nodiscard"]
        done = subprocess.run(
            [mkfs, *how, *layout, str(image)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OSError(errno.EIO, f"mkfs.ext4: {done.stderr.strip()[-200:]}")
        return read_image(image)


def image_size(mib: int) -> int:
    """Return the bytes of an image in which files may take `mib`, and a little more."""
    net = (mib + MORE) * MIB
    net += min(OWN_MIB * MIB, net // 50)
    inodes = (mib + MORE) * FILES_PER_MIB * INODE
    groups = (net + inodes) // (GROUP_MIB * MIB) + 1
    # Bitmaps, and inodes up to a whole block; descriptors, and copies.
    tables = groups * 3 * BLOCK + 24 * (groups * 64 + BLOCK)
    return -(-(net + inodes + tables) // MIB) * MIB


def within(path: str, place: Path, volume: Volume) -> bool:
    """Tell whether a mount is of one host's volume."""
    return path in [os.path.realpath(each) for each in (str(place), *volume.carried.values())]


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder that no sandbox has written: files, folders, links, with modes and times."""
    target.mkdir()
    target.chmod(stat.S_IMODE(source.stat().st_mode))
    with beneath.folder(source) as root:
        for entry in beneath.walk(root, ALL):
            path, mode = target / entry.path, entry.status.st_mode
            if stat.S_ISDIR(mode):
                path.mkdir()
                path.chmod(stat.S_IMODE(mode))
            elif stat.S_ISLNK(mode):
                path.symlink_to(os.readlink(entry.name, dir_fd=entry.folder))
            elif stat.S_ISREG(mode):
                opened = beneath.open_file(entry.folder, entry.name)
                with open(opened, "rb") as file, path.open("xb") as copy:
                    shutil.copyfileobj(file, copy, MIB)
                path.chmod(stat.S_IMODE(mode))
                os.utime(path, ns=(entry.status.st_atime_ns, entry.status.st_mtime_ns))


def restore(run: Path, volumes: Mapping[str, Volume]) -> bool:
    """Mount the volumes of a gang that are not mounted any more; False: what was in one is lost."""
    whole, there = True, mounts.volumes(str(run))
    for host, volume in volumes.items():
        place = host_folder(run, host)
        try:
            if os.path.realpath(place) not in there:
                mount_again(run / volume.image, place)
                there = mounts.volumes(str(run))
            for name, source in volume.carried.items():
                if os.path.realpath(source) not in there and os.path.isdir(source):
                    mount(str(place / name), source, None, MS_BIND)
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("the volume of %s in %s is lost: %s", host, run.name, error)
            whole = False
    return whole


def discard(run: Path) -> None:
    """Take a run directory's volumes away, with what is in them: their space is free at once."""
    mounts.unmount(list(mounts.volumes(str(run))), discard=True)
    for image in run.glob("disk-*.img"):
        with suppress(OSError):
            os.truncate(image, 0)  # also while another mount namespace still has it
