"""Opening a database: schema versions, files that are none, and disks that are full."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from cloche.core.clock import ManualClock, to_ms
from cloche.records import metrics, tables
from cloche.records.database import connect, versions
from cloche.records.errors import storage_full
from cloche.records.migrate import migrations
from cloche.records.store import NewerDatabase, NotADatabase, Resource, StorageFull, Store

WRITE = Path(__file__).parent / "write.py"


def test_migrations_make_the_tables_that_the_code_has(tmp_path: Path) -> None:
    path = tmp_path / "cloche.db"
    Store.open(path).close()
    assert metrics.metric.metadata is tables.metadata
    with connect(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        made = dict(
            connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE sql NOTNULL"
            ).all()
        )
    fresh = sa.create_engine("sqlite://")
    tables.metadata.create_all(fresh)
    with fresh.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL")
        for name, sql in rows:
            # Alembic compares neither this, nor what of a column is in its definition alone.
            assert plain(sql) == plain(made[name]), name


def test_files_are_numbered_as_alembic_orders_them() -> None:
    revisions = ScriptDirectory.from_config(migrations()).walk_revisions()
    assert versions() == tuple(revision.revision for revision in revisions)


def plain(sql: str) -> str:
    return re.sub(r"\s+", " ", sql)


def test_opening_twice_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "cloche.db"
    for _ in range(2):
        store = Store.open(path)
        assert store.read().exec_driver_sql("SELECT version_num FROM alembic_version").all() == [
            (versions()[0],)
        ]
        store.close()


@pytest.mark.parametrize("revision", ["0001", "0003"])
def test_an_older_database_keeps_its_resources(tmp_path: Path, revision: str) -> None:
    """What clients asked for was `wish` there, beside events that nothing read."""
    path = tmp_path / "cloche.db"
    engine = connect(f"sqlite:///{path}")
    wanted = {"Request": {"Name": "ü", "Values": [1, None]}, "Tags": {}}
    values = ("job", "1", "r", "a", "arn:a", "Failed", 5, 7, 3, json.dumps(wanted), '{"x": 1}')
    with engine.begin() as connection:
        config = migrations()
        config.attributes["connection"] = connection
        config.attributes["secrets"] = None  # there are no keys to move
        command.upgrade(config, revision)
        marks = ",".join("?" * len(values))
        connection.exec_driver_sql(f"INSERT INTO resource VALUES ({marks})", values)
        connection.exec_driver_sql("INSERT INTO event VALUES (1, 'arn:a', 7, 'Failed', 'why')")
    engine.dispose()
    store = Store.open(path)
    found = store.find("arn:a")
    assert found is not None and found == store.get("job", "1", "r", "a")
    assert (found.desired, found.document) == (wanted, {"x": 1})
    assert (found.status, found.version) == ("Failed", 3)
    assert (to_ms(found.created), to_ms(found.modified)) == (5, 7)
    assert "event" not in sa.inspect(store.read()).get_table_names()
    store.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cloche.db"
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerDatabase) as caught:
        Store.open(path)
    assert str(path) in str(caught.value)
    assert "'9999'" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all, whatever its name says" * 100, None])
def test_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cloche.db"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(NotADatabase):
        Store.open(path)
    assert path.read_bytes() == before


def resource(name: str, size: int = 10) -> Resource:
    now = ManualClock().now()
    return Resource(
        account="1",
        region="r",
        kind="k",
        name=name,
        arn=name,
        created=now,
        modified=now,
        desired={"x": "x" * size},
    )


async def test_a_full_disk_loses_nothing_and_passes(tmp_path: Path) -> None:
    """SQLite's own limit on pages answers exactly as a full disk does."""
    store = Store.open(tmp_path / "cloche.db")

    def limit(pages: int) -> None:
        store.write_now(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}"))

    acknowledged = [await store.insert(resource("before"))]
    (used,) = store.read().exec_driver_sql("PRAGMA page_count").scalars()
    limit(used + 20)
    answers = await asyncio.gather(
        *[store.insert(resource(f"n{n}", 3000)) for n in range(60)], return_exceptions=True
    )
    for number in range(60):
        try:
            acknowledged.append(await store.insert(resource(f"m{number}", 3000)))
        except StorageFull as error:
            assert error.status == 507
            break
    else:
        pytest.fail("the disk never filled")
    acknowledged += [one for one in answers if isinstance(one, Resource)]
    assert all(isinstance(one, Resource | StorageFull) for one in answers)
    assert {one.name for one in store.each("k")} == {one.name for one in acknowledged}
    limit(1 << 30)
    acknowledged.append(await store.insert(resource("after", 3000)))
    store.close()
    again = Store.open(tmp_path / "cloche.db")
    assert {one.name for one in again.each("k")} == {one.name for one in acknowledged}
    again.close()


def test_what_counts_as_a_full_disk() -> None:
    assert storage_full(OSError(errno.ENOSPC, "No space left on device"))
    assert storage_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not storage_full(OSError(errno.EACCES, "Permission denied"))
    assert not storage_full(ValueError())


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="mounting a small file system is not allowed here")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system of 1 MiB: refused, nothing lost, and on again once there is space."""
    script = (
        f"mount -t tmpfs -o size=1m none {tmp_path} && "
        f"exec {sys.executable} {WRITE} fill {tmp_path}"
    )
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all there"
