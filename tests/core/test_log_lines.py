"""Lines that the platform adds to logs."""

from pathlib import Path

from cloche.core import log_lines
from cloche.services.logs.files import read_from


def test_texts_are_added_as_lines_that_are_read_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"1 the engine's\n")
    log_lines.append(log, [(2, "one\ntwo"), (3, "caf\u00e9 \ud800")])
    log_lines.append(log, [])
    records, _ = read_from(log, 0)
    assert [(record.at_ms, record.text) for record in records] == [
        (1, "the engine's"),
        (2, "one"),
        (2, "two"),
        (3, "caf\u00e9 ?"),
    ]


def test_a_log_is_made(tmp_path: Path) -> None:
    log_lines.append(tmp_path / "log", [(1, "first")])
    assert (tmp_path / "log").read_text() == "1 first\n"


def test_texts_are_those_of_whole_lines() -> None:
    whole = (log_lines.line(5, "a text") + log_lines.line(6, "another")).encode()
    assert log_lines.texts(whole + b"7 half") == (["a text", "another"], len(whole))
