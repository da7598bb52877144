"""The system calls that no process of a sandbox may make: a seccomp(2) filter, for all it starts.

Namespaces hide files, processes and networks, but not all of the kernel: AF_VSOCK knows no network
namespace, keyrings hang on the user, and bpf, perf, userfaultfd, io_uring and user namespaces
are where sandboxes were left before. What can be listed is allowed by a list (socket families),
the rest is refused by one. Installed after no_new_privs and before any thread: by bubblewrap, by
`install` where there is no bubblewrap, and by the forks of fork servers, which get it by message.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
NUMBER, ARCHITECTURE, FIRST, SECOND, THIRD = (
    0,
    4,
    16,
    24,
    32,
)  # in seccomp_data
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x50000, 0x80000000
X32 = 0x40000000  # another set of system calls behind the same architecture
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
NETLINK, ROUTE = 16, 0  # AF_NETLINK: only what tells of interfaces (getifaddrs)
# CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET,NS}; NEWTIME is a signal's bit to clone(2)
NAMESPACES = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x20000
TERMINAL_INPUT = (0x5412, 0x541C)  # ioctl TIOCSTI, TIOCLINUX: typing into somebody's terminal
# name -> number on x86_64, on aarch64; None: there is none
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# Those that are looked into, in the same order: numbers by name.
INSPECTED = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "unshare": (272, 97),
    "ioctl": (16, 29),
    "clone3": (435, 435),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # -> column, AUDIT_ARCH_*


def program(machine: str = "") -> bytes | None:
    """Return the filter as BPF instructions; None for a machine whose numbers we don't know."""
    if sys.platform != "linux" and not machine:
        return None
    known = MACHINES.get(machine or os.uname().machine)
    if known is None:
        return None
    column, architecture = known
    code: list[tuple[int, int, int | str, int | str]] = []  # instruction, k, where to on yes, on no
    labels: dict[str, int] = {}

    def add(instruction: int, k: int, yes: int | str = 0, no: int | str = 0) -> None:
        code.append((instruction, k, yes, no))

    add(LOAD, ARCHITECTURE)
    add(EQUAL, architecture, 0, "kill")
    add(LOAD, NUMBER)
    if column == 0:
        add(AT_LEAST, X32, "unknown")
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            add(EQUAL, number, "refuse")
    add(EQUAL, INSPECTED["clone3"][column], "unknown")  # flags behind a pointer: libc has clone
    for name, label in (("socket", "family"), ("socketpair", "family"), ("ioctl", "request")):
        add(EQUAL, INSPECTED[name][column], label)
    add(EQUAL, INSPECTED["clone"][column], "flags")
    add(EQUAL, INSPECTED["unshare"][column], "flags", "allow")
    labels["family"] = len(code)
    add(LOAD, FIRST)
    for family in FAMILIES:
        add(EQUAL, family, "allow")
    add(EQUAL, NETLINK, 0, "no family")
    add(LOAD, THIRD)
    add(EQUAL, ROUTE, "allow", "no family")
    labels["request"] = len(code)
    add(LOAD, SECOND)
    for request in TERMINAL_INPUT:
        add(EQUAL, request, "refuse")
    add(RETURN, ALLOW)
    labels["flags"] = len(code)
    add(LOAD, FIRST)
    add(ANY_BIT, NAMESPACES, "refuse", "allow")
    endings = {"allow": ALLOW, "kill": KILL, "refuse": REFUSE | errno.EPERM}
    endings |= {"unknown": REFUSE | errno.ENOSYS, "no family": REFUSE | errno.EAFNOSUPPORT}
    for label, ending in endings.items():
        labels[label] = len(code)
        add(RETURN, ending)

    def distance(place: int, to: int | str) -> int:
        return labels[to] - place - 1 if isinstance(to, str) else to

    return b"".join(
        struct.pack("=HBBI", instruction, distance(at, yes), distance(at, no), k)
        for at, (instruction, k, yes, no) in enumerate(code)
    )


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Put the filter on this process for good, and on all that it starts (with no_new_privs)."""
    libc = ctypes.CDLL(None, use_errno=True)
    given = ctypes.byref(Program(len(code) // 8, code))
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, MODE_FILTER, given)):
        if libc.prctl(*arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_memory(data: bytes) -> int:
    """Return a descriptor from which another program reads the bytes."""
    descriptor = os.memfd_create("cloche")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
