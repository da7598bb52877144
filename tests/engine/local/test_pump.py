"""Lines in, records out."""

import errno
import os
import resource
import time
from pathlib import Path

import pytest

from cloche.engine.local.supervisor.pump import (
    LONGEST_LINE,
    PARTIAL_AFTER_S,
    LogWriter,
    Pump,
    Splitter,
)


@pytest.mark.parametrize(
    ("chunks", "lines", "rest"),
    [
        ([b"a\nb\n"], [b"a", b"b"], b""),
        ([b"a", b"b\nc"], [b"ab"], b"c"),
        ([b"\n\n"], [b"", b""], b""),
        ([b"1%\r2%\r3%"], [b"1%", b"2%"], b"3%"),
        ([b"\r1%", b"\r2%", b"\n"], [b"1%", b"2%"], b""),
        ([b"a\r\nb\r\n"], [b"a", b"b"], b""),
        ([b"a\r", b"\nb\n"], [b"a", b"b"], b""),
        ([b"a\r", b"\n", b"\n"], [b"a", b""], b""),
        ([b"\r\n"], [b""], b""),
        ([b"\r\r\r"], [], b""),
        ([b""], [], b""),
    ],
)
def test_splitting(chunks: list[bytes], lines: list[bytes], rest: bytes) -> None:
    splitter = Splitter()
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines
    assert splitter.flush() == ([rest] if rest else [])
    assert splitter.flush() == []


@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
@pytest.mark.parametrize("text", ["x" * 700_000, "é" * 350_000, "x" + "€" * 200_000])
def test_long_lines_are_split_between_characters(text: str, end: bytes) -> None:
    splitter = Splitter()
    lines = splitter.feed(text.encode() + end) + splitter.flush()
    assert "".join(line.decode() for line in lines) == text
    assert max(map(len, lines)) <= LONGEST_LINE and len(lines) == -(-len(text.encode()) // 262140)


def test_bytes_that_are_no_text_are_split_as_they_come() -> None:
    splitter = Splitter()
    lines = splitter.feed(b"\x80" * 600_000 + b"\n")
    assert b"".join(lines) == b"\x80" * 600_000 and max(map(len, lines)) <= LONGEST_LINE


def records(path: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_an_unfinished_line_waits_a_moment(tmp_path: Path) -> None:
    pump = Pump(LogWriter(str(tmp_path / "log")))
    pump.feed(b"half", 100.0)
    pump.tick(100.0 + PARTIAL_AFTER_S / 2)
    assert records(tmp_path / "log") == []
    pump.tick(100.0 + PARTIAL_AFTER_S)
    assert records(tmp_path / "log") == ["half"]
    pump.feed(b" done\nlast", 102.0)
    pump.finish()
    pump.finish()
    assert records(tmp_path / "log") == ["half", " done", "last"]


def marked(path: Path) -> list[tuple[str, str]]:
    found = [line.split(" ", 1) for line in path.read_text().splitlines()]
    return [(mark.lstrip("0123456789"), text) for mark, text in found]


def pumped(path: Path, *parts: bytes) -> list[tuple[str, str]]:
    """Return marks and texts of parts with a pause after each."""
    pump, now = Pump(LogWriter(str(path))), 100.0
    for part in parts:
        pump.feed(part, now)
        now += PARTIAL_AFTER_S
        pump.tick(now)
    pump.finish()
    return marked(path)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"a\nb\n"], [("", "a"), ("", "b")]),
        ([b"a", b"b\n", b"c\n"], [("+", "a"), ("&", "b"), ("", "c")]),
        ([b"a", b"b", b"c\nd\n"], [("+", "a"), ("&+", "b"), ("&", "c"), ("", "d")]),
        ([b"x\na", b"b\xff\n"], [("", "x"), ("+", "a"), ("&", "b\ufffd")]),
        ([b"a", b"\nb\n"], [("+", "a"), ("&", ""), ("", "b")]),
        ([b"1%", b"\r2%", b"\r3%\n"], [("+", "1%"), ("+", "2%"), ("", "3%")]),
        ([b"a", b"\r\nb\n"], [("+", "a"), ("", ""), ("", "b")]),
        ([b"a", b"b"], [("+", "a"), ("&+", "b")]),
        ([b"\n", b"\n"], [("", ""), ("", "")]),
    ],
)
def test_parts_of_a_line_are_marked(
    parts: list[bytes], expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert pumped(tmp_path / "log", *parts) == expected


def test_a_note_ends_a_line(tmp_path: Path) -> None:
    pump = Pump(LogWriter(str(tmp_path / "log")))
    pump.feed(b"a", 100.0)
    pump.tick(100.0 + PARTIAL_AFTER_S)
    pump.feed(b"b", 102.0)
    pump.note("stopped")
    pump.finish()
    assert marked(tmp_path / "log") == [("+", "a"), ("&", "b"), ("", "[cloche] stopped")]


def test_records_carry_the_time_and_are_appended(tmp_path: Path) -> None:
    for text in (b"one", b"two\xff"):
        before = time.time_ns() // 1_000_000
        log = LogWriter(str(tmp_path / "log"))
        log.append([text])
        log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two\ufffd"]
    assert before <= int(lines[1].split()[0]) <= before + 60_000


def test_a_full_disk_loses_lines_and_says_so(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: a write ends half way in."""
    path = tmp_path / "log"
    pump = Pump(LogWriter(str(path)))
    pump.feed(b"before\n", 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, limits[1]))
    try:
        pump.feed(b"this fits\nthis does not\nnor this\n", 2.0)
        pump.feed(b"nor that\nunfinished", 3.0)
        assert not pump.finish()
        assert not pump.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert records(path) == ["before", "this fits"], "no torn record stays"
    assert pump.finish()
    note = f"[cloche] 4 log lines were lost here: {os.strerror(errno.EFBIG)}"
    assert records(path) == ["before", "this fits", note]


def test_a_disk_that_has_space_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    pump = Pump(LogWriter(str(path)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        pump.feed(b"lost\n", 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    pump.feed(b"after\n", 2.0)
    note = f"[cloche] 1 log lines were lost here: {os.strerror(errno.EFBIG)}"
    assert records(path) == [note, "after"]
