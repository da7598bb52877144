"""Words as a shell makes them; where a shell would do more, it does it."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.runtime.shell_words import by_shell, joined

SHOW = 'import sys; print("\\n".join(sys.argv[1:]))'


def shown(command: list[str], folder: Path) -> list[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


PLAIN = [
    (["--layers", "64 32"], ["--layers", "64", "32"]),
    (["--verbose", ""], ["--verbose"]),
    (["--device", '"cpu"'], ["--device", "cpu"]),
    (["--title", "'two words'"], ["--title", "two words"]),
    (["--title", '"it\'s"'], ["--title", "it's"]),
    (["--list", "[1, 2]"], ["--list", "[1,", "2]"]),
    (["--glob", "*.nothing"], ["--glob", "*.nothing"]),
    (["--map", "a=1,b=2"], ["--map", "a=1,b=2"]),
    (["--tabs", "a\tb"], ["--tabs", "a", "b"]),
    (["--name", "é %@^+:/"], ["--name", "é", "%@^+:/"]),
]
SHELLS = [
    (["--home", "$X-${X}"], ["--home", "1-1"]),
    (["--quoted", "'$X'"], ["--quoted", "$X"]),
    (["--glob", "*.txt"], ["--glob", "a.txt", "b.txt"]),
    (["--glob", '"*.txt"'], ["--glob", "*.txt"]),
    (["--code", "`echo hi`"], ["--code", "hi"]),
    (["--escaped", "a\\ b"], ["--escaped", "a b"]),
    (["--comment", "a #b"], ["--comment", "a"]),
    (["--lines", "'a b'; echo after"], ["--lines", "a b", "after"]),
    (["--to", "x >/dev/stderr"], []),
]


@pytest.mark.parametrize(("sent", "words"), PLAIN)
def test_plain_words_need_no_shell(sent: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    command = [sys.executable, "show.py", *sent]
    assert by_shell(command, tmp_path) == [sys.executable, "show.py", *words]
    assert shown(["/bin/sh", "-c", joined(command)], tmp_path) == words, "a shell's are the same"


@pytest.mark.parametrize(("sent", "words"), SHELLS)
def test_all_else_goes_to_a_shell(
    sent: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X", "1")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    (tmp_path / "show.py").write_text(SHOW)
    command = [sys.executable, "show.py", *sent]
    started = by_shell(command, tmp_path)
    assert started[:2] == ["/bin/sh", "-c"]
    assert shown(started, tmp_path) == words


def test_a_quote_alone_is_the_shells_to_refuse(tmp_path: Path) -> None:
    command = [sys.executable, "show.py", "--name", "it's"]
    assert by_shell(command, tmp_path) == ["/bin/sh", "-c", joined(command)]


def test_the_interpreters_path_may_have_spaces(tmp_path: Path) -> None:
    command = ["/a folder/python", "hpo.py", "a b"]
    assert shlex.split(joined(command)) == ["/a folder/python", "hpo.py", "a", "b"]
