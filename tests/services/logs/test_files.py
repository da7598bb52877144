"""Log files: complete lines, positions, times, size."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.services.logs.files import (
    LogFile,
    LogRecord,
    format_record,
    parse,
    read_from,
    read_lines,
)


def line(at_ms: int, text: str) -> str:
    return f"{at_ms} {text}\n"


def test_only_complete_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(line(1, "one") + "2 tw")
    records, offset = read_from(path, 0)
    assert records == [LogRecord(1, "one", 1)]
    assert read_from(path, offset) == ([], offset)
    with path.open("a") as file:
        file.write("o\n")
    assert read_from(path, offset)[0] == [LogRecord(2, "two", 2)]
    assert read_from(tmp_path / "none.log", 0) == ([], 0)


def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"1 50%\r100%\n2 \n3  two  spaces \n4 \xff\xc3\xa9\n")
    texts = [record.text for record in read_from(path, 0)[0]]
    assert texts == ["50%\r100%", "", " two  spaces ", "\ufffdé"]


def test_what_is_no_record_keeps_its_text() -> None:
    assert parse(b"hello there") == LogRecord(0, "hello there", 0)
    assert parse(b"") == LogRecord(0, "", 0)


@given(st.text(), st.integers(0, 10**14), st.integers(0, 10**14))
def test_any_text_fits_a_line(text: str, at_ms: int, ingested_ms: int) -> None:
    record = LogRecord(at_ms, text, ingested_ms)
    written = format_record(record)
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert parse(written[:-1]) == record


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 40_000)), max_size=20))
def test_positions_and_times_agree_with_a_list(lines: list[tuple[int, int]]) -> None:
    records = [LogRecord(at_ms, "x" * length, at_ms) for at_ms, length in sorted(lines)]
    path = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path("/tmp")
    path = path / f"cloche-test-{time.monotonic_ns()}.log"
    try:
        path.write_text("".join(line(r.at_ms, r.text) for r in records))
        with LogFile(path) as log:
            forward = list(log.forward(0, log.size))
            assert [place.record for place in forward] == records
            assert list(log.backward(log.size, 0)) == forward[::-1]
            assert log.last() == (records[-1] if records else None)
            for at_ms in range(0, 52, 7):
                offset = log.at_or_after(at_ms)
                assert [p.record for p in log.forward(offset, log.size)] == [
                    r for r in records if r.at_ms >= at_ms
                ]
            assert all(log.is_start(place.end) for place in forward)
            assert not any(log.is_start(place.start + 1) for place in forward)
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 MB: a million lines, one a second."""
    path = tmp_path_factory.mktemp("large") / "large.log"
    with path.open("w") as file:
        for block in range(100):
            start = block * 10_000
            file.writelines(f"{(start + n) * 1000:013d} {'x' * 85}\n" for n in range(10_000))
    return path


def test_a_page_of_a_large_log_takes_milliseconds(large: Path) -> None:
    """From the middle by time, and from the end: 10,000 lines, far less than reading it all."""
    assert large.stat().st_size == 100_000_000

    def by_time() -> None:
        with LogFile(large) as log:
            start = log.at_or_after(500_000_000)
            places = list(log.forward(start, log.size, limit_bytes=1_000_000))
            assert places[0].record.at_ms == 500_000_000 and len(places) == 10_000

    def from_the_end() -> None:
        with LogFile(large) as log:
            places = list(log.backward(log.size, log.size - 1_000_000))
            assert places[0].record.at_ms == 999_999_000 and len(places) == 10_000

    for read in (by_time, from_the_end):
        best = min(cpu_s(read) for _ in range(3))
        print(f"{read.__name__}: {best * 1000:.1f} ms")
        assert best < 0.2  # reading it whole takes over a second


def cpu_s(work: object) -> float:
    assert callable(work)
    start = time.process_time()
    work()
    return time.process_time() - start


LINES = b"1 a\n2+ b\n3&+ c\n4& d\n5+ e\n6 f\n7+ g\n8&+ h\n"


def test_parts_of_a_line_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES)
    records, offset = read_lines(path, 0, whole=False)
    assert [(each.at_ms, each.text) for each in records] == [
        (1, "a"),
        (4, "bcd"),
        (5, "e"),
        (6, "f"),
    ]
    assert LINES[offset:] == b"7+ g\n8&+ h\n", "it is read once it is whole"
    assert read_lines(path, offset, whole=False) == ([], offset)
    records, end = read_lines(path, offset, whole=True)
    assert ([each.text for each in records], end) == (["gh"], len(LINES))
    with path.open("ab") as log:
        log.write(b"9& i\n")
    records, end = read_lines(path, offset, whole=False)
    assert ([each.text for each in records], end) == (["ghi"], len(LINES) + 5)
    assert [each.text for each in read_from(path, offset)[0]] == ["g", "h", "i"], "as printed"


@pytest.mark.parametrize("limit_bytes", range(1, len(LINES) + 1))
@pytest.mark.parametrize("whole", [False, True])
def test_reading_in_pieces_ends_and_loses_nothing(
    whole: bool, limit_bytes: int, tmp_path: Path
) -> None:
    path, offset, texts = tmp_path / "log", 0, []
    path.write_bytes(LINES)
    while (found := read_lines(path, offset, whole=whole, limit_bytes=limit_bytes))[0]:
        texts += [each.text for each in found[0]]
        assert found[1] > offset
        offset = found[1]
    assert "".join(texts) in ("abcdefgh", "abcdefg", "abcdef") and (
        not whole or offset == len(LINES)
    )


def test_a_part_without_its_beginning_is_a_line(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none", 0, whole=True) == ([], 0)
    (tmp_path / "log").write_bytes(b"1 a\n2& b\n")
    assert [each.text for each in read_lines(tmp_path / "log", 0, whole=False)[0]] == ["a", "b"]
