"""Attempts by pictures that a job trains on, on what decodes them and whoever reads what it says.

What a decoder with a hole would give away is read from outside, in /proc, while it is at work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_pictures import POSTSCRIPT, TERABYTE, black, leak, picture, slow
from PIL import Image
from training_client import BUCKET, Trainer, channel

from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.probe import probe, reduced
from cloche.services.sagemaker.training.picture_look import (
    INSIDE,
    LONGEST,
    MOST,
    PictureCheck,
    findings,
)
from cloche.testing.engine_lab import Lab, wait_until
from cloche.testing.local_engine import local_lab
from cloche.testing.platform import Platform

SANDBOXED = probe()
sandboxed = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts")
FOUND = (
    "error: the same file is in train and test 1 time: train/a/1.jpg = test/a/1.jpg",
    "error: 1 file can't be used: train/a/x.jpg ",
)
WITHIN_S = 30.0


@pytest.fixture(params=["full", "reduced"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    if request.param == "full" and SANDBOXED.isolation != "full":
        pytest.skip("needs sandboxes")
    machine = SANDBOXED if request.param == "full" else reduced("as the test wants it")
    with local_lab(tmp_path, machine) as lab:
        yield lab


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "channels"
    made.mkdir()
    return made


def look(lab: Lab, folder: Path) -> list[str] | None:
    return PictureCheck(lab.engine, folder).run()


def decoder(lab: Lab, one: PictureCheck) -> int | None:
    """Return the process that decodes, by now."""
    assert isinstance(lab.engine, LocalEngine)
    state = lab.engine.folder(one.name) / "state.json"
    if not state.exists():
        return None
    (process,) = json.loads(state.read_text())["processes"].values()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            ours = os.getpgid(int(name)) == process["group"] or os.readlink(
                f"/proc/{name}/ns/pid"
            ) == os.readlink(f"/proc/{process['group']}/ns/pid")
        except OSError:
            continue
        at_work = b"-I" in words and "900" in limits(int(name), "address space", 1 << 20)
        if ours and at_work:
            return int(name)
    return None


def limits(pid: int, what: str, unit: int = 1) -> str:
    """Return the hard limit of a process, in units."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return ""
    (line,) = (line for line in lines if line.startswith(f"Max {what}"))
    hard = line.split()[-2]
    return str(int(hard) // unit) if hard.isdigit() else hard


def reach(pid: int, canary: Path) -> set[str]:
    """Return what a process could get at that is not its own."""
    shared = {
        name
        for name in NAMESPACES
        if os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
    }
    if Path(f"/proc/{pid}/root{canary}").exists():
        shared.add("canary")
    if Path(f"/proc/{pid}").stat().st_uid == os.geteuid() == 0:
        shared.add("root")
    mounts = (line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    if [words[5].split(",")[0] for words in mounts if words[4] == INSIDE] != ["ro"]:
        shared.add("pictures")
    return shared


def while_it_decodes(lab: Lab, folder: Path, canary: Path) -> set[str]:
    """Return what the process that decodes could get at."""
    canary.write_text("secret")
    slow(folder)
    one = PictureCheck(lab.engine, folder)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        return reach(wait_until(lambda: decoder(lab, one)), canary)
    finally:
        one.stop()
        thread.join(WITHIN_S)
        assert not thread.is_alive() and lab.engine.adopt() == ()


@sandboxed
@pytest.mark.control("test_without_a_sandbox_the_decoder_reaches_all: at 0e393ec it always did")
def test_the_decoder_reaches_nothing(tmp_path: Path, folder: Path, canary: Path) -> None:
    with local_lab(tmp_path, SANDBOXED) as lab:
        assert while_it_decodes(lab, folder, canary) == set()


def test_without_a_sandbox_the_decoder_reaches_all(
    tmp_path: Path, folder: Path, canary: Path
) -> None:
    with local_lab(tmp_path, reduced("as the test wants it")) as lab:
        found = while_it_decodes(lab, folder, canary)
    assert found >= {*NAMESPACES, "canary", "pictures"}


# ---------------------------------------------------------------- what lies in the channel


@pytest.mark.control("At 0e393ec the check waited for a writer of the FIFO for good")
def test_fifo(lab: Lab, folder: Path) -> None:
    leak(folder)
    os.mkfifo(folder / "train/a/x.jpg")
    assert look(lab, folder) == [FOUND[0]]


@pytest.mark.control("At 0e393ec the links were followed: valid/secret.jpg was found")
def test_links_to_what_is_outside(lab: Lab, folder: Path, tmp_path: Path) -> None:
    leak(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(picture(1))
    (folder / "valid").symlink_to(outside)
    (folder / "train/a/loop").symlink_to("..")
    (folder / "train/a/link.jpg").symlink_to(outside / "secret.jpg")
    assert look(lab, folder) == [FOUND[0]]


@pytest.mark.control("At 0e393ec it was read until the memory was used up: a device has no size")
def test_endless_files(lab: Lab, folder: Path) -> None:
    leak(folder)
    (folder / "train/a/x.jpg").symlink_to("/dev/zero")
    with (folder / "train/a/y.jpg").open("wb") as file:
        file.truncate(TERABYTE)
    assert look(lab, folder) == [FOUND[0]]


@pytest.mark.control("test_without_a_bound_it_takes_the_memory")
def test_decompression_bomb(lab: Lab, folder: Path) -> None:
    leak(folder)
    (folder / "train/a/x.jpg").write_bytes(black(60_000, kind=6, rows=1))
    found = look(lab, folder)
    assert found is not None and found[0] == FOUND[0] and found[1].startswith(FOUND[1])
    (folder / "train/a/x.jpg").write_bytes(black(13_300, kind=6, bytes_a_pixel=4))
    assert look(lab, folder) == [FOUND[0]]  # within Pillow's own bound, not within ours


def test_without_a_bound_it_takes_the_memory(folder: Path) -> None:
    path = folder / "x.png"
    path.write_bytes(black(13_300, kind=6, bytes_a_pixel=4))
    script = (
        "import sys, resource; from cloche.datacheck.folder import look_at; "
        "look_at('x', open(sys.argv[1], 'rb').read()); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 800 << 10  # KiB


@pytest.mark.control("Without the table of formats Pillow takes it for PostScript (asserted here)")
def test_other_programs_are_not_started(lab: Lab, folder: Path) -> None:
    leak(folder)
    path = folder / "train/a/x.jpg"
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as image:
        assert image.format == "EPS"
    assert look(lab, folder) == [FOUND[0], f"{FOUND[1]}is not a picture"]


# ---------------------------------------------------------------- what it says

WORDS = {
    "deep": b"[" * 100_000,
    "a long number": b"9" * 100_000,
    "no object": b'["error"]',
    "no severity": b'{"severity": ["error"], "text": "x"}',
    "no json": b"\xff\xfe\0",
}


def said(*words: bytes) -> bytes:
    return b"".join(b"1700000000000 " + each + b"\n" for each in words)


@pytest.mark.control("test_without_care_for_what_it_says")
@pytest.mark.parametrize("name", WORDS)
def test_words_that_are_no_finding(name: str) -> None:
    good = b'{"severity": "error", "text": "good"}'
    assert findings(said(WORDS[name], good)) == ["error: good"]


@pytest.mark.control("test_without_care_for_what_it_says")
def test_words_that_are_many_or_several_lines() -> None:
    forged = {"severity": "error", "text": "a\n1700000000000 forged\u2028\x1b[2J" + "x" * 99_999}
    found = findings(said(*[json.dumps(forged).encode()] * 1000))
    assert len(found) == MOST
    assert found[0].startswith("error: a\\n1700000000000 forged\\u2028\\x1b[2Jxxx")
    assert len(found[0]) < 2 * LONGEST and found[0].isprintable()


def test_without_care_for_what_it_says() -> None:
    with pytest.raises(RecursionError):
        json.loads(WORDS["deep"])
    with pytest.raises(ValueError, match="digits"):
        json.loads(WORDS["a long number"])
    assert "\n" in json.loads(b'{"text": "a\\n1700000000000 forged"}')["text"]


@pytest.mark.control("At 0e393ec the job's log had the forged record")
def test_key_that_forges_a_record_of_the_log(platform: Platform) -> None:
    trainer = Trainer(platform)
    for key in ("forging/train/a/1\n1700000000000 forged.jpg", "forging/test/a/1.jpg"):
        trainer.put(key, picture(1))
    inputs = [channel("training", f"s3://{BUCKET}/forging")]
    lines = trainer.completed("print('done')", InputDataConfig=inputs).splitlines()
    assert [line for line in lines if "forged" in line] == [
        "Cloche's data check: error: the same file is in train and test 1 time: "
        "training/train/a/1\\n1700000000000 forged.jpg = training/test/a/1.jpg"
    ]
