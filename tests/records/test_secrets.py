"""Secrets apart from the records: kept, closed to others, moved out of an older home's records."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command

from cloche.core.clock import ManualClock
from cloche.core.private import NotPrivate
from cloche.records import database, migrate
from cloche.records.errors import NewerDatabase, NotADatabase
from cloche.records.secrets import Secrets
from cloche.records.store import Store
from cloche.services.iam import Identity, Policies

SECRET, TOKEN = "s3cret" * 6, "t0ken" * 50
PRINCIPAL = {
    "kind": "root",
    "account": "123456789012",
    "arn": "arn:aws:iam::123456789012:root",
    "user_id": "123456789012",
    "role_arn": None,
}
DOCUMENTS = {
    ("access-key", "AKIA1"): {"Principal": PRINCIPAL, "SecretAccessKey": SECRET},
    ("session", "ASIA1"): {
        "Principal": PRINCIPAL,
        "SecretAccessKey": SECRET + "2",
        "SessionToken": TOKEN,
        "Expiration": 4_000_000_000_000,
    },
}


def older(path: Path) -> None:
    """Make a database as it was before secrets were apart, with keys that came and went."""
    engine = database.connect(f"sqlite:///{path}", "secure_delete=OFF")
    with engine.begin() as connection:
        config = migrate.migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for (kind, name), document in DOCUMENTS.items():
            row = (kind, "123456789012", "", name, f"{kind}/{name}", "", 0, 0, 1, "{}")
            gone = (*row[:3], f"{name}gone", f"{kind}/{name}gone", *row[5:])
            for values in (row, gone):
                connection.exec_driver_sql(
                    f"INSERT INTO resource VALUES ({','.join('?' * 11)})",
                    (*values, json.dumps(document)),
                )
        connection.exec_driver_sql("DELETE FROM resource WHERE name LIKE '%gone'")
    engine.dispose()


def found(folder: Path, *besides: str) -> set[str]:
    """Return the files that hold one of the secrets, but for those with these beginnings."""
    return {
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(besides)
        and any(text.encode() in path.read_bytes() for text in (SECRET, TOKEN))
    }


async def test_an_older_homes_secrets_are_moved_and_nothing_of_them_stays(tmp_path: Path) -> None:
    older(tmp_path / "cloche.db")
    assert found(tmp_path)
    store = Store.open(tmp_path / "cloche.db", ManualClock())
    try:
        assert found(tmp_path, "secrets.db") == set()  # pages, free pages and the log
        identity = Identity(store, ManualClock(), Policies(store))
        root, session = identity.find("AKIA1"), identity.find("ASIA1")
        assert root is not None and root.secret_access_key == SECRET
        assert session is not None and session.session_token == TOKEN
        assert session.secret_access_key == SECRET + "2" and session.expires is not None
    finally:
        store.close()
    assert found(tmp_path, "secrets.db") == set()
    Store.open(tmp_path / "cloche.db").close()  # nothing is moved twice


@pytest.mark.parametrize("moment", ["moved", "committed"])
def test_a_move_that_was_interrupted_is_done_again(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cloche.db"
    older(path)

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "moved":
            kept = Secrets.put_now
            patched.setattr(Secrets, "put_now", lambda *a: (kept(*a), crash()))
        else:
            patched.setattr("cloche.records.store.scrub", crash)
        with pytest.raises(KeyboardInterrupt):
            Store.open(path)
    assert found(tmp_path, "secrets.db") != set()
    store = Store.open(path)
    try:
        assert found(tmp_path, "secrets.db") == set()
        assert json.loads(store.secrets.get("access-key/AKIA1") or "") == {
            "SecretAccessKey": SECRET
        }
    finally:
        store.close()


async def test_secrets_are_kept_replaced_and_overwritten_when_dropped(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    secrets = Secrets.open(path)
    await secrets.put({"a": SECRET, "b": "2"})
    await secrets.put({"b": "3"})
    assert (secrets.get("a"), secrets.get("b"), secrets.get("c")) == (SECRET, "3", None)
    secrets.close()
    again = Secrets.open(path)
    assert sorted(again.names()) == ["a", "b"]
    await again.drop(["a", "not there"])
    assert again.names() == ["b"]
    again.close()  # the log goes into the file
    assert SECRET.encode() not in path.read_bytes()


WRITER = """
import sys
from pathlib import Path
from cloche.records.secrets import Secrets
secrets = Secrets.open(Path(sys.argv[1]))
number = 0
while True:
    secrets.put_now({str(number): "x" * 100})
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 20:
                break
        writer.kill()
        last = max([20, *map(int, writer.stdout.read().split("\n")[:-1])])
    secrets = Secrets.open(path)
    assert {str(number) for number in range(last + 1)} <= set(secrets.names())
    secrets.close()


def test_it_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    Secrets.open(path).close()
    path.chmod(0o666)
    before = os.umask(0)
    try:
        secrets = Secrets.open(path)
        secrets.put_now({"a": "1"})
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("secrets.db*")}
        secrets.close()
    finally:
        os.umask(before)
    assert modes == {0o600}


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
@pytest.mark.parametrize("name", ["secrets.db", "secrets.db-wal", "cloche.db", "cloche.db-shm"])
def test_what_is_no_file_of_its_own_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    elsewhere.touch()
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(NotPrivate, match=f"{name} (is not a regular file|can't be used)"):
        Store.open(tmp_path / "cloche.db")
    assert elsewhere.read_bytes() == b""


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    for make, error in (("PRAGMA user_version=9", NewerDatabase), ("SELECT 1", NotADatabase)):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS other (a)")
            connection.execute(make)
        connection.close()
        with pytest.raises(error):
            Secrets.open(path)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=0")
        connection.close()
    path.write_text("no database at all, but long enough to be looked at " * 20)
    with pytest.raises(NotADatabase):
        Secrets.open(path)
