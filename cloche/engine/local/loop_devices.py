"""Image files as file systems: copied without their holes, attached to loop devices, mounted."""

import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import which

from cloche.engine.local.supervisor.namespaces import mount

CONTROL = "/dev/loop-control"
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
BLOCK = 4096
# Blocks that are freed go back to the disk. No barriers: there is no journal to keep in order.
OPTIONS = "noinit_itable,discard,nobarrier,errors=remount-ro"
MS_NOSUID, MS_NODEV, MS_NOATIME = 2, 4, 1024
LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
LOOP_MAJOR = 7
AUTOCLEAR, DIRECT_IO = 4, 16  # goes with its mount; nothing is kept in memory twice
CONFIGURATION = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")  # `struct loop_config`
ATTEMPTS = 64  # others take loop devices, too
STATE_AT, IN_ORDER = 1024 + 58, 1  # in an image: whether it was unmounted in order
CHECK_WITHIN_S, GONE_WITHIN_S = 60.0, 10.0
REPAIRED = 1  # e2fsck's answers up to this one: all is well


Contents = list[tuple[int, bytes]]  # where they begin, and what they are


def read_image(image: Path) -> tuple[int, Contents]:
    """Return the size of an image, and what is in it."""
    with image.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        found = extents(file.fileno(), size)
        return size, [(start, os.pread(file.fileno(), end - start, start)) for start, end in found]


def write_image(image: Path, size: int, contents: Contents) -> int:
    """Return a descriptor of a new image; what is not in `contents` is a hole."""
    made = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(made, size)
        for start, content in contents:
            os.pwrite(made, content, start)
    except BaseException:
        os.close(made)
        raise
    return made


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has contents: begin and end, at most 1 MiB each."""
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole to its end
            raise
        end = min(os.lseek(descriptor, at, os.SEEK_HOLE), at + (1 << 20))
        yield at, end
        at = end


def attach(image: int) -> tuple[int, str]:
    """Return a loop device of an open image: its descriptor, which keeps it, and its path."""
    configuration = CONFIGURATION.pack(
        image, BLOCK, *[0] * 8, AUTOCLEAR | DIRECT_IO, b"", b"", b"", *[0] * 10
    )
    with open(CONTROL, "rb") as control:
        for _ in range(ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            if not os.path.exists(path):  # in a container nobody else makes it
                with suppress(FileExistsError):
                    os.mknod(path, 0o600 | 0o060000, os.makedev(LOOP_MAJOR, number))
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, configuration)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, f"{path}: {error.strerror}") from error
            else:
                return device, path
    raise OSError(errno.EBUSY, "no loop device is free")


def mount_image(image: int, place: Path) -> None:
    """Mount an open image; its loop device goes when the last mount of it does."""
    device, path = attach(image)
    try:
        mount(path, str(place), "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, OPTIONS)
    finally:
        os.close(device)


def mount_again(image: Path, place: Path) -> None:
    """Mount an image that was mounted before, perhaps when the machine lost its power.

    While somebody holds it, it is mounted by the same device: two of them would know nothing of
    each other. Who just lets go of it is waited for.
    """
    until = time.monotonic() + GONE_WITHIN_S
    while (there := attached(image)) is not None:
        try:
            mount(there, str(place), "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, OPTIONS)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
    opened = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        state = os.pread(opened, 1, STATE_AT)
        if not state or not state[0] & IN_ORDER:
            repair(image)
        mount_image(opened, place)
    finally:
        os.close(opened)


def repair(image: Path) -> None:
    """Put an image in order that was not unmounted; OSError when that can't be."""
    program = which("e2fsck", path=SYSTEM_PATH)
    if program is None:
        raise OSError(errno.ENOENT, "there is no e2fsck")
    done = subprocess.run(
        [program, "-f", "-y", str(image)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=CHECK_WITHIN_S,
    )
    if done.returncode > REPAIRED:
        raise OSError(errno.EIO, f"e2fsck ended with {done.returncode}")


def attached(image: Path) -> str | None:
    """Return the loop device that has an image; None when none does."""
    path = os.path.realpath(image)
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if os.fsdecode(file.read_bytes().rstrip(b"\n")) == path:
                return f"/dev/{file.parts[3]}"
    return None
