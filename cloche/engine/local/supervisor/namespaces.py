"""Linux namespaces and mounts, by the system calls that Python 3.11 does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442  # the same on all machines
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, 0x80000, 4
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MOUNT_ATTR_IDMAP = 0x100000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, IFF_UP, IFF_RUNNING = 0x8914, 0x8916, 0x891C, 0x1, 0x40
RTM_NEWLINK, NLM_F_NEW = 16, 0x1 | 0x4 | 0x200 | 0x400  # request, acknowledge, create, exclusive
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 18, 1
ID_COUNT = 65536
FALLOC_FL_KEEP_SIZE = 1

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def checked(result: int, what: str) -> int:
    """Return the result of a system call; OSError names what was tried."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    checked(libc.unshare(flags), "unshare")


def become_subreaper() -> None:
    """Have orphans among the descendants handed to this process instead of to init (Linux)."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)


def enter_own_user_namespace() -> None:
    """Make an unprivileged process root of a new user and network namespace."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {uid} 1")
    write("/proc/self/gid_map", f"0 {gid} 1")


def make_user_namespace(first: int, owner: int | None) -> int:
    """Return a descriptor of a user namespace in which ids 0..65535 are `first`… outside.

    `owner`: who may enter it; None: root. Needs root, for an unprivileged process may map
    no id but its own.
    """
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if owner is not None:
                os.setgroups([])
                os.setgid(owner)
                os.setuid(owner)
            unshare(CLONE_NEWUSER)
            os.write(ready_write, b"x")
            os.close(done_write)
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(done_read)
    try:
        if not os.read(ready_read, 1):
            raise OSError("the kernel refused a user namespace")
        for name in ("uid_map", "gid_map"):
            write(f"/proc/{pid}/{name}", f"0 {first} {ID_COUNT}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(done_write)
        os.waitpid(pid, 0)


def enter_private_mounts(place: str, sources: dict[str, str], mapped: set[str], ids: int) -> None:
    """Enter new mount and network namespaces with a fresh folder `place` that holds `sources`.

    So a process of another user reaches them whatever the modes of the folders above are.
    sources: name in `place` -> path. Those named in `mapped` show what root owns as owned by the
    sandbox's root (user namespace `ids`); a file system that can't do that shows it as it is.
    """
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    trees = {
        name: open_tree(path, ids if name in mapped else None) for name, path in sources.items()
    }
    mount("tmpfs", place, "tmpfs", 0, "mode=0755")
    for name, (fd, is_folder) in trees.items():
        target = f"{place}/{name}"
        if is_folder:
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        arguments = (fd, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
        checked(libc.syscall(SYS_MOVE_MOUNT, *arguments), f"mount {sources[name]}")
        os.close(fd)


def open_tree(path: str, ids: int | None) -> tuple[int, bool]:
    """Return a detached bind mount of `path`, and whether it is a folder."""
    is_folder = os.path.isdir(path)
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    if ids is None:
        flags |= AT_RECURSIVE
    raw = os.fsencode(path)
    fd = checked(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, raw, flags), f"mount {path}")
    if ids is not None:
        attributes = MountAttributes(MOUNT_ATTR_IDMAP, 0, 0, ids)
        size = ctypes.sizeof(attributes)
        libc.syscall(SYS_MOUNT_SETATTR, fd, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size)
    return fd, is_folder


def mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3])
    checked(result, f"mount {target}")


def set_up_network() -> None:
    """Bring this network namespace's `lo` up, and let anyone inside listen on any port.

    Instances on AWS have an `eth0`, and scripts name it (GLOO_SOCKET_IFNAME): there is one here,
    with an address and no way to anywhere, where the kernel has a kind for that.
    """
    raise_interface("lo")
    for kind, ends in (("dummy", ("eth0",)), ("veth", ("eth0", "veth0"))):
        with contextlib.suppress(OSError):  # a kernel without that kind
            add_interface("eth0", kind)
            set_address("eth0", SIOCSIFADDR, "10.0.0.1")
            set_address("eth0", SIOCSIFNETMASK, "255.255.255.255")
            for end in ends:
                raise_interface(end)
            break
    with contextlib.suppress(OSError):  # /proc/sys is read-only in some containers
        write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")


def raise_interface(name: str) -> None:
    """Bring a network interface up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as request:
        flags = struct.pack("16sH22x", name.encode(), IFF_UP | IFF_RUNNING)
        fcntl.ioctl(request, SIOCSIFFLAGS, flags)


def set_address(name: str, what: int, address: str) -> None:
    """Set the address, or the mask, of a network interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as request:
        packed = socket.inet_aton(address)
        setting = struct.pack("16sH2x4s16x", name.encode(), socket.AF_INET, packed)
        fcntl.ioctl(request, what, setting)


def add_interface(name: str, kind: str) -> None:
    """Make a network interface by rtnetlink(7); a `veth`'s other end is named by the kernel."""
    attributes = netlink_attribute(IFLA_IFNAME, name.encode() + b"\0")
    information = netlink_attribute(IFLA_INFO_KIND, kind.encode() + b"\0")
    attributes += netlink_attribute(IFLA_LINKINFO, information)
    message = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attributes
    header = struct.pack("=IHHII", 16 + len(message), RTM_NEWLINK, NLM_F_NEW, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(header + message)
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if error:
        raise OSError(-error, f"{name}: {os.strerror(-error)}")


def netlink_attribute(number: int, value: bytes) -> bytes:
    """Return a netlink attribute, padded to four bytes."""
    head = struct.pack("=HH", 4 + len(value), number)
    return head + value + b"\0" * (-len(value) % 4)


def write(path: str, text: str) -> None:
    """Write a file of /proc in one go."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def allocate(descriptor: int, size: int) -> None:
    """Have the file system set `size` bytes aside for a file; what can't do that does not."""
    if sys.platform == "linux":
        length = ctypes.c_int64(size)
        libc.fallocate(descriptor, FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), length)
