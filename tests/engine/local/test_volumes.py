"""Sandboxes' files in volumes: the kernel bounds them at once, nothing is lost, nothing is left."""

import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.engine import GangSpec, Seen
from cloche.engine.local import volumes
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.loop_devices import attached
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.supervisor import mounts
from cloche.engine.local.supervisor.disk import Room
from cloche.engine.local.volumes import Volumes
from cloche.testing.engine_lab import Lab, outcomes, wait_until
from cloche.testing.local_engine import local_lab

MACHINE = probe()
MIB = 1 << 20
pytestmark = [
    pytest.mark.skipif(MACHINE.isolation != "full", reason=" ".join(MACHINE.advice)),
    pytest.mark.skipif(bool(lack := Volumes(Path("/")).lack), reason=lack),
]
# All of it at once: nobody looks in between.
TAKE = """
    import os, sys
    with open("/out/file", "wb") as file:
        {unlink}
        try:
            for n in range(300): os.posix_fallocate(file.fileno(), n << 20, 1 << 20)
        except OSError as error:
            sys.exit(error.errno)
"""
NAMES = """
    import sys
    try:
        for n in range(4000): open(f"/out/{n}", "w").close()
    except OSError as error:
        sys.exit(error.errno)
"""
AT_A_SIGN = """
    import os, time
    open("/out/ready", "w").close()
    while not os.path.exists("/out/begin"):
        time.sleep(0.01)
"""
WRITE = "mkdir /out/d; echo model > /out/d/f; cat /out/before; echo up; {then}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose sandboxes have volumes."""
    with local_lab(tmp_path, MACHINE) as lab:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "before").write_text("before\n")
        yield lab


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Lab]:
    """The same with files that are watched."""
    with local_lab(tmp_path, MACHINE, mounted=False) as lab:
        (tmp_path / "out").mkdir()
        yield lab


def place(lab: Lab, script: str, disk_mib: int = 64, *, python: bool = False) -> None:
    """Launch a gang whose folder /out is in its volume."""
    make = lab.python if python else lab.process
    process = make("h", script, lab.mount(lab.folder / "out", "/out", "rw", volume=True))
    object.__setattr__(process, "disk_mib", disk_mib)
    lab.place(GangSpec(name="gang", processes=(process,), stop_grace_s=0.1))


def run(lab: Lab, script: str, disk_mib: int = 64) -> Seen:
    """Run a Python script in such a gang to its end."""
    place(lab, script, disk_mib, python=True)
    return lab.finished()["h"]


def unseen(lab: Lab, script: str, taken: Callable[[], bool], disk_mib: int = 64) -> None:
    """Run it to its end; whoever watches stands still from before it begins until all is taken."""
    begin, ready = lab.folder / "out" / "begin", lab.folder / "out" / "ready"
    place(lab, AT_A_SIGN + script, disk_mib, python=True)
    wait_until(ready.exists)
    watching = json.loads((folder(lab) / "state.json").read_text())["supervisor"]
    os.kill(watching, signal.SIGSTOP)
    try:
        begin.touch()
        wait_until(taken)
    finally:
        os.kill(watching, signal.SIGCONT)
    lab.finished()


def folder(lab: Lab) -> Path:
    """Return the gang's run directory."""
    assert isinstance(lab.engine, LocalEngine)
    return lab.engine.folder("gang")


@pytest.mark.parametrize("unlink", ["", "os.unlink('/out/file')"])
def test_space_is_refused_at_once(lab: Lab, unlink: str) -> None:
    """Control: `test_watching_alone_comes_too_late`."""
    seen = run(lab, TAKE.format(unlink=unlink))
    assert seen.exit_code in (errno.ENOSPC, -signal.SIGKILL)
    assert seen.reason == "DiskFull" or (unlink and seen.exit_code == errno.ENOSPC)
    if not unlink:
        assert 64 * MIB < (lab.folder / "out" / "file").stat().st_blocks * 512 < 68 * MIB
        assert re.fullmatch(r"h holds 6[567] MiB of files; it may have 64 MiB", seen.detail)
    assert (folder(lab) / "disk-h.img").stat().st_blocks * 512 < 70 * MIB


def test_inodes_are_refused_at_once(lab: Lab) -> None:
    seen = run(lab, NAMES, disk_mib=20)
    assert seen.exit_code in (errno.ENOSPC, -signal.SIGKILL) and seen.reason == "DiskFull"
    assert seen.detail.endswith(" files and folders; it may have 1280")
    assert 1200 < len(os.listdir(lab.folder / "out")) < 1500


def test_watching_alone_comes_too_late(watched: Lab) -> None:
    """The same attempts, where there are no volumes: all is taken before anybody looks."""
    out = watched.folder / "out"
    file = out / "file"
    unseen(
        watched,
        TAKE.format(unlink=""),
        lambda: file.exists() and file.stat().st_blocks * 512 >= 300 * MIB,
    )
    watched.engine.forget("gang")
    for entry in out.iterdir():
        entry.unlink()
    unseen(watched, NAMES, lambda: len(os.listdir(out)) >= 4000 + 2, disk_mib=20)


def test_a_disk_that_gives_less(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume never promises more than the disk has left; who fills it is told so."""

    class Little(Room):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            self.bytes = self.reserve + (100 << 20)

    monkeypatch.setattr(volumes, "Room", Little)
    seen = run(lab, TAKE.format(unlink=""), disk_mib=1000)
    assert seen.reason == "DiskFull" and seen.detail.endswith(" files, and the disk is full")
    assert (lab.folder / "out" / "file").stat().st_blocks * 512 < 110 * MIB


def test_what_was_there_and_what_is_written(lab: Lab) -> None:
    """Both are seen in both places, until the gang is forgotten; then nothing is left of it."""
    out = lab.folder / "out"
    (out / "deep" / "er").mkdir(parents=True)
    (out / "deep" / "er" / "run.sh").write_text("exit 0\n")
    (out / "deep" / "er" / "run.sh").chmod(0o755)
    (out / "link").symlink_to("before")
    os.utime(out / "before", ns=(1, 123456789))
    script = """
        /out/deep/er/run.sh && cat /out/link && stat -c %Y /out/before && rm /out/before
        ls -A / /tmp /root /out | grep lost; echo new > /out/deep/new
    """
    place(lab, script)
    assert outcomes(lab.finished()) == {"h": (0, None)}
    assert lab.log("h") == ["before", "0"]
    assert (out / "deep" / "new").read_text() == "new\n" and not (out / "before").exists()
    gang, image = folder(lab), folder(lab) / "disk-h.img"
    assert mounts.volumes(str(gang)) and attached(image)
    lab.engine.clear("gang")
    assert (out / "deep" / "new").read_text() == "new\n" and not (gang / "host-h/tmp").exists()
    lab.engine.forget("gang")
    assert sorted(os.listdir(out)) == ["before", "deep", "link"], "as it was"
    assert not mounts.volumes(str(lab.folder)) and not gang.exists()
    wait_until(lambda: attached(image) is None)


def test_deleted_files_go_back_to_the_disk(lab: Lab) -> None:
    script = "head -c 40m /dev/urandom > /out/f; sync; rm /out/f; sync; echo up; sleep 99"
    place(lab, script)
    wait_until(lambda: lab.said("h", "up"))
    image = folder(lab) / "disk-h.img"
    wait_until(lambda: image.stat().st_blocks * 512 < 10 * MIB)


def test_nobody_else_holds_a_volume(lab: Lab) -> None:
    """Later sandboxes begin with all mounts that there are, and let go of them."""
    place(lab, "sleep 99")
    later = GangSpec(name="later", processes=(lab.process("l", "sleep 99"),), background=True)
    lab.place(later)
    image = folder(lab) / "disk-h.img"
    lab.engine.stop("gang")
    lab.finished()
    lab.engine.forget("gang")
    wait_until(lambda: attached(Path(f"{image} (deleted)")) is None and attached(image) is None)
    assert (lab.engine.see("later") or {})["l"].state == "running"


LAUNCHER = """
import json, os, sys
from pathlib import Path
from cloche.engine import GangSpec
from cloche.engine.local.probe import probe
from cloche.engine.local.supervisor import mounts
from cloche.testing.local_engine import local_lab
mounts.own()
folder = Path(sys.argv[1])
with local_lab(folder, probe()) as lab:
    process = lab.process("h", sys.argv[2], lab.mount(folder / "out", "/out", "rw", volume=True))
    lab.place(GangSpec(name="gang", processes=(process,), stop_grace_s=0.1))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("then", ["true", "while [ ! -e /out/go ]; do sleep 0.05; done"])
def test_a_server_that_is_killed(lab: Lab, then: str) -> None:
    """None of its mounts is left; who starts next sees what was written, also of what has ended."""
    out = lab.folder / "out"
    script = WRITE.format(then=then)
    done = subprocess.run([sys.executable, "-c", LAUNCHER, lab.folder, script], check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: lab.said("h", "up"))
    assert not (out / "d").exists() and not mounts.volumes(str(lab.folder))
    if then == "true":
        wait_until(lambda: (folder(lab) / "exit-h.json").exists())
    lab.engine = lab.make()
    assert (out / "d" / "f").read_text() == "model\n"
    (out / "go").touch()
    assert outcomes(lab.finished()) == {"h": (0, None)}
    assert (out / "d" / "f").read_text() == "model\n"
    lab.engine.forget("gang")
    assert sorted(os.listdir(out)) == ["before"]
    assert not mounts.volumes(str(lab.folder))


def test_the_machine_sees_none_of_the_mounts(lab: Lab) -> None:
    place(lab, "sleep 99")
    assert mounts.volumes(str(lab.folder))
    there = mounts.here.machine
    assert there is not None
    command = ["nsenter", f"--mount=/proc/self/fd/{there}", "cat", "/proc/self/mountinfo"]
    seen = subprocess.run(command, pass_fds=(there,), capture_output=True, text=True, check=True)
    assert seen.stdout and str(lab.folder) not in seen.stdout


@pytest.mark.parametrize("in_order", [True, False])
def test_a_machine_that_starts_again(lab: Lab, in_order: bool) -> None:
    """What has ended and was not collected is there, also when the power went."""
    place(lab, WRITE.format(then="sync"))
    lab.finished()
    image = folder(lab) / "disk-h.img"
    subprocess.run(["cp", "--sparse=always", image, lab.folder / "as-it-was"], check=True)
    mounts.unmount(list(mounts.volumes(str(lab.folder))))
    wait_until(lambda: attached(image) is None)
    if not in_order:
        os.replace(lab.folder / "as-it-was", image)
    lab.engine = lab.make()
    assert (lab.folder / "out" / "d" / "f").read_text() == "model\n"
    assert outcomes(lab.engine.see("gang") or {}) == {"h": (0, None)}


def test_a_volume_that_is_lost(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody says that a gang went well whose files are gone."""
    place(lab, WRITE.format(then="true"))
    lab.finished()
    image = folder(lab) / "disk-h.img"
    mounts.unmount(list(mounts.volumes(str(lab.folder))), discard=True)
    wait_until(lambda: attached(image) is None)
    image.write_bytes(b"nothing")
    lab.engine = lab.make()
    assert (lab.engine.see("gang") or {})["h"].state == "lost"
    assert "the volume of h in gang is lost" in caplog.text
    lab.engine.forget("gang")


def test_a_folder_of_several_hosts_is_in_no_volume(lab: Lab) -> None:
    out = lab.mount(lab.folder / "out", "/out", "rw", volume=True)
    one = lab.process("a", "echo a > /out/a; while [ ! -e /out/b ]; do sleep 0.02; done", out)
    two = lab.process("b", "while [ ! -e /out/a ]; do sleep 0.02; done; echo b > /out/b", out)
    assert outcomes(lab.run(one, two)) == {"a": (0, None), "b": (0, None)}
    planned = json.loads((folder(lab) / "plan.json").read_text())["processes"]
    assert [each["carried"] for each in planned] == [{}, {}] and all(p["volume"] for p in planned)
    lab.engine.forget("gang")
    assert sorted(os.listdir(lab.folder / "out")) == ["a", "b", "before"]


def test_what_does_not_fit_is_watched(lab: Lab) -> None:
    """What was put there is more than the bound: the gang is ended for it, and says so."""
    (lab.folder / "out" / "large").write_bytes(b"x" * (80 * MIB))
    place(lab, "sleep 60")
    seen = lab.finished()["h"]
    assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
    assert not mounts.volumes(str(lab.folder))


def test_where_none_can_be_had(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files are watched, as without; and why is told."""

    def refuse(image: int, place: Path) -> None:
        raise OSError(errno.EPERM, "no loop device")

    monkeypatch.setattr(volumes, "mount_image", refuse)
    with caplog.at_level(logging.WARNING, "cloche.engine"):
        place(lab, "head -c 80m /dev/zero > /out/f; sleep 60")
    seen = lab.finished()["h"]
    assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
    assert not mounts.volumes(str(lab.folder))
    assert "gang has no volume, its files are watched: [Errno 1] no loop device" in caplog.text
    assert isinstance(lab.engine, LocalEngine)
    assert "disk by watching ([Errno 1] no loop device)." in lab.engine.isolation
    monkeypatch.undo()
    lab.engine.forget("gang")
    (lab.folder / "out" / "f").unlink()
    place(lab, "true")
    assert "disk by volumes." in lab.engine.isolation


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("CONTROL", "/nowhere", "there is no /nowhere"),
        ("SYSTEM_PATH", "/nowhere", "there is no mkfs.ext4"),
    ],
)
def test_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setattr(volumes, name, value)
    engine = LocalEngine(tmp_path / "runs", machine=MACHINE)
    assert f"disk by watching ({why})." in engine.isolation


def test_not_without_mounts_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody would see the mounts, and they would stay behind, there are none."""
    monkeypatch.setattr(mounts.here, "machine", None)
    assert Volumes(tmp_path).lack == "this process has no mounts of its own"
    engine = LocalEngine(tmp_path / "runs", machine=reduced("for this test"))
    assert "disk by watching." in engine.isolation


@pytest.mark.parametrize("mib", [1, 20, 64, 1024, 30 * 1024, 500 * 1024])
def test_how_much_fits(tmp_path: Path, mib: int) -> None:
    """What is allowed and a little more: of bytes, and of inodes."""
    image = volumes.write_image(tmp_path / "image", *volumes.fresh("mkfs.ext4", mib))
    (tmp_path / "place").mkdir()
    try:
        volumes.mount_image(image, tmp_path / "place")
        told = os.statvfs(tmp_path / "place")
    finally:
        os.close(image)
        mounts.unmount([str(tmp_path / "place")], discard=True)
    free = told.f_bavail * told.f_frsize / MIB
    assert mib + 1 < free < mib * 1.01 + 4
    inodes = mib * volumes.FILES_PER_MIB
    assert inodes + 64 < told.f_favail < inodes * 1.01 + 2048
    assert (tmp_path / "image").stat().st_blocks * 512 < 8 * MIB
    shutil.rmtree(tmp_path / "place")
