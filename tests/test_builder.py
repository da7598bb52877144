"""What a build's sandbox is shown, and what it reaches."""

import sys
from pathlib import Path

import pytest

from cloche.builder import fence, local_paths, settings_of
from cloche.core.config import Home
from cloche.gateway.egress import ConnectRefused, Destination


def test_files_that_settings_name_are_seen_but_never_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "user/cloche")
    for folder in (home.path / "blobs", tmp_path / "wheels", tmp_path / "user/wheels"):
        folder.mkdir(parents=True)
    (tmp_path / "own.whl").touch()
    (tmp_path / "link").symlink_to(home.path)
    seen = [tmp_path / "wheels", tmp_path / "user/wheels", tmp_path / "own.whl"]
    hidden = [Path("/"), tmp_path, tmp_path / "user", home.path, home.path / "blobs"]
    hidden += [tmp_path / "link", tmp_path / "missing", tmp_path / "wheels/../user/cloche"]
    named = [
        f"{seen[0]} file://{seen[1]}",
        f"own @ file://{seen[2]}",
        "https://example.com/simple relative/wheels /usr/lib",
        *map(str, hidden),
    ]
    assert local_paths(named, home) == seen


async def test_hosts_that_settings_name_are_reached_at_their_ports() -> None:
    settings = {"index-url": "http://u:p@127.0.0.2:8000/simple", "find-links": "https://127.0.0.3/"}
    egress = fence(("a", "b @ http://127.0.0.4/b.whl"), settings)
    for host, port in (("127.0.0.2", 8000), ("127.0.0.3", 443), ("127.0.0.4", 80)):
        assert await egress.resolve(Destination(host, port), None, straight=True) == [(host, port)]
    for host, port in (("127.0.0.2", 8001), ("127.0.0.3", 80), ("127.0.0.1", 4599)):
        with pytest.raises(ConnectRefused, match="is not a public address"):
            await egress.resolve(Destination(host, port), None, straight=True)


def test_pips_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files hold, `install`'s over all commands', the environment over both; where things go
    outside is nothing for a sandbox.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    (tmp_path / "pip.conf").write_text(
        "[global]\nretries = 1\nindex-url = https://a.example\ntimeout = 7\n"
        "[install]\nretries = 2\nindex-url = https://b.example\ntarget = /there\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_RETRIES", "3")
    monkeypatch.setenv("PIP_CACHE_DIR", "/cache")
    monkeypatch.delenv("PIP_DEFAULT_TIMEOUT", raising=False)
    found = settings_of(tmp_path)
    assert found["retries"] == "3" and found["index-url"] == "https://b.example"
    assert found["timeout"] == "7" and not found.keys() & {"target", "cache-dir"}
