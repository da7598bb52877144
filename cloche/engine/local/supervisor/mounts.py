"""Which of the machine's mounts are volumes of sandboxes, and taking them away.

A volume is an image mounted by a loop device at `…/host-NAME`, and bound to wherever else the
server looks for what is in it. The mounts are in a namespace of the server's own: the machine
does not see them, and none is left of a server that was killed. Standard library only: fork
servers use this too.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import struct
import sys

CLONE_NEWNS, MS_REC, MS_SLAVE, MNT_DETACH = 0x20000, 0x4000, 0x80000, 2
LOOP_MAJOR = b"7:"
SHUTDOWN, AT_ONCE = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN: what is not yet written never will be
FIELDS = 5  # of a line in mountinfo: id, above, device, root, place

libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """Whose mounts this process sees."""

    machine: int | None = None  # descriptor of the machine's, once we have our own


here = Namespace()


def own() -> None:
    """Give this process, before it has threads, mounts of its own, if it may have any."""
    if sys.platform != "linux":
        return
    machine = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNS) == 0:
        here.machine = machine
        # What is mounted on the machine later is seen here, too.
        libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None)
    else:
        os.close(machine)


def volumes(below: str | None = None) -> dict[str, bytes]:
    """Return where volumes are mounted, in the order of their mounting, and their devices.

    below: only those whose own place lies in that folder; whatever else they are bound to counts.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = [line.split(b" ", FIELDS) for line in file]
    except OSError:
        return {}
    prefix = b"/" if below is None else os.fsencode(os.path.realpath(below)) + b"/"
    looped = [
        (device, root, unescaped(place))
        for _, _, device, root, place, _ in lines
        if device.startswith(LOOP_MAJOR)
    ]
    devices = {
        device
        for device, root, place in looped
        if root == b"/" and os.path.basename(place).startswith(b"host-")
        if place.startswith(prefix)
    }
    return {os.fsdecode(place): device for device, _, place in looped if device in devices}


def unescaped(place: bytes) -> bytes:
    """Return a path as mountinfo writes it, as it is."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), place)


def unmount(paths: list[str], *, discard: bool = False) -> None:
    """Take mounts away, the last one first, also from under who still looks at them.

    discard: nothing of what is in there is needed any more, and none of it is written.
    """
    if discard:
        for path in paths:
            with contextlib.suppress(OSError):
                shut_down(path)
    for path in reversed(paths):
        libc.umount2(os.fsencode(path), MNT_DETACH)


def shut_down(path: str) -> None:
    """Have a file system write nothing more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", AT_ONCE))
    finally:
        os.close(descriptor)


def leave(but_in: str | None = None) -> None:
    """Let go of the machine's volumes in a mount namespace of our own, but for what is in a folder.

    Each namespace has all mounts that there were when it was made, and a volume goes only when the
    last one has let go of it.
    """
    unmount([path for path in volumes() if but_in is None or not path.startswith(f"{but_in}/")])
