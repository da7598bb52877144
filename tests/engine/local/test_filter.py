"""The filter of system calls: what it says, and that every process of a sandbox has it."""

import errno
import os
import socket
import struct
import sys
import threading

import pytest

from cloche.engine.local.supervisor.filter import (
    INSPECTED,
    KILL,
    MACHINES,
    REFUSED,
    in_memory,
    install,
    program,
)

PASSES, NO, NO_SUCH, NO_FAMILY = 0, errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT
ALLOWED = {  # what jobs need, and what is like something refused
    "x86_64": {
        "read": 0,
        "ptrace": 101,
        "chroot": 161,
        "seccomp": 317,
        "clone": 56,
        "openat2": 437,
    },
    "aarch64": {"read": 63, "ptrace": 117, "chroot": 51, "seccomp": 277, "openat2": 437},
}
CLONE_THREAD = 0x3D0F00  # what pthread_create asks for
SIGCHLD = 17
LOOKED_INTO = [
    ("socket", (1, 1, 0), PASSES),
    ("socket", (2, 1, 6), PASSES),
    ("socket", (10, 2, 17), PASSES),
    ("socket", (16, 3, 0), PASSES),  # NETLINK_ROUTE: getifaddrs
    ("socket", (16, 3, 12), NO_FAMILY),  # NETLINK_NETFILTER
    ("socket", (16, 3, 9), NO_FAMILY),  # NETLINK_AUDIT
    ("socket", (40, 1, 0), NO_FAMILY),  # AF_VSOCK
    ("socket", ((7 << 32) | 40, 1, 0), NO_FAMILY),  # the kernel looks at an int
    ("socket", ((7 << 32) | 1, 1, 0), PASSES),
    ("socket", (38, 5, 0), NO_FAMILY),  # AF_ALG
    ("socket", (17, 3, 0), NO_FAMILY),  # AF_PACKET
    ("socket", (30, 1, 0), NO_FAMILY),  # AF_TIPC
    ("socket", (44, 3, 0), NO_FAMILY),  # AF_XDP
    ("socket", (45, 1, 0), NO_FAMILY),  # one more than there are
    ("socketpair", (1, 1, 0), PASSES),
    ("socketpair", (30, 1, 0), NO_FAMILY),
    ("clone", (CLONE_THREAD,), PASSES),
    ("clone", (SIGCHLD,), PASSES),
    ("clone", (0x10000000 | SIGCHLD,), NO),  # CLONE_NEWUSER
    ("clone", (0x00020000 | SIGCHLD,), NO),  # CLONE_NEWNS
    ("unshare", (0x10000000,), NO),
    ("unshare", (0x40000000,), NO),
    ("unshare", (0x400,), PASSES),  # CLONE_FILES
    ("ioctl", (0, 0x5401), PASSES),  # TCGETS
    ("ioctl", (0, 0x5412), NO),  # TIOCSTI
    ("ioctl", (0, (1 << 32) | 0x5412), NO),
    ("ioctl", (0, 0x541C), NO),  # TIOCLINUX
    ("clone3", (), NO_SUCH),
]


def judged(code: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Return what the filter says, as the kernel runs it: 0 or an error number; -1: killed."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *values)
    accumulator, at = 0, 0
    while True:
        instruction, yes, no, k = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if instruction == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif instruction == 0x06:
            if k == KILL:
                return -1
            return 0 if k == 0x7FFF0000 else k & 0xFFFF
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k != 0}
            at += yes if holds[instruction] else no


@pytest.mark.parametrize("machine", MACHINES)
def test_every_system_call_that_is_listed_is_refused(machine: str) -> None:
    column, architecture = MACHINES[machine]
    code = program(machine)
    assert code is not None
    refused = {n[column] for n in REFUSED.values() if n[column] is not None}
    for number in refused:
        assert judged(code, architecture, number) == NO, number
    for name, number in ALLOWED[machine].items():
        assert judged(code, architecture, number) == PASSES, name
    inspected = {numbers[column] for numbers in INSPECTED.values()}
    for number in set(range(600)) - refused - inspected:
        assert judged(code, architecture, number) == PASSES, number


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "verdict"), LOOKED_INTO)
def test_what_is_looked_into(
    machine: str, name: str, arguments: tuple[int, ...], verdict: int
) -> None:
    column, architecture = MACHINES[machine]
    code = program(machine)
    assert code is not None
    assert judged(code, architecture, INSPECTED[name][column], arguments) == verdict


def test_other_architectures() -> None:
    """Other numbers mean other system calls: i386 on x86_64, arm on aarch64, x32."""
    for machine, other in (("x86_64", 0x40000003), ("aarch64", 0x40000028)):
        code = program(machine)
        assert code is not None and judged(code, other, 3) == -1
    code = program("x86_64")
    assert code is not None
    for number in (0x40000000, 0x40000000 + 41, 0x400000FF, 0xFFFFFFFF):
        assert judged(code, MACHINES["x86_64"][1], number) == NO_SUCH


def test_a_machine_whose_numbers_are_not_known() -> None:
    assert program("riscv64") is None


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_the_kernel_takes_it() -> None:
    """Installed in a child: what is refused, and that threads still start."""
    code = program()
    if code is None:
        pytest.skip("no filter for this machine")
    descriptor = in_memory(code)
    assert os.read(descriptor, 1 << 16) == code
    os.close(descriptor)
    pid = os.fork()
    if pid == 0:
        os._exit(attempt(code))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def attempt(code: bytes) -> int:
    """Return 0 when a child with the filter is refused vsock and may start a thread."""
    install(code)
    try:
        socket.socket(40, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            return 1
    else:
        return 2
    thread = threading.Thread(target=socket.socketpair)
    thread.start()
    thread.join()
    return 0
