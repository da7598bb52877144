"""A folder that is its owner's alone, while its server changes it."""

import os
from pathlib import Path

import pytest

from cloche.core.private import NotPrivate, check_entries


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A folder whose listing has a file that is renamed before it is looked at."""
    (tmp_path / ".credentials.json.new").touch()
    (tmp_path / "credentials.json").touch()
    list_entries = os.listdir

    def then_renamed(descriptor: int) -> list[str]:
        entries = list_entries(descriptor)
        (tmp_path / ".credentials.json.new").rename(tmp_path / "credentials.json")
        return entries

    monkeypatch.setattr(os, "listdir", then_renamed)
    return os.open(tmp_path, os.O_RDONLY)


def test_a_file_that_is_renamed_meanwhile_is_no_fault(tmp_path: Path, listed: int) -> None:
    check_entries(tmp_path, listed)
    assert not (tmp_path / ".credentials.json.new").exists()


def test_what_is_there_is_checked_all_the_same(tmp_path: Path, listed: int) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(NotPrivate, match="link is a symbolic link"):
        check_entries(tmp_path, listed)
