"""Another user of the machine, and what is kept in the home folder."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from other_user import NEEDS, NOBODY, OtherUser, public_place, root_secret

from cloche.core.home import HomeError
from cloche.engine import GangSpec, Placed, ProcessSpec
from cloche.testing.platform import Platform, start

pytestmark = pytest.mark.skipif(not NEEDS, reason="to be another user takes root")

WALL = "At 0e393ec the home folder was 0755 and the same read succeeded; test_without_the_wall."
BODY, LINE = b"body of an object that is nobody else's", "a line of a log that is nobody else's"
STOP = """
import socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
control.sendall(b"stop")
loot.write(control.recv(100))
"""


class Scene:
    """A platform in a place that everybody can reach, with a running gang, and the other user."""

    def __init__(self, place: Path, platform: Platform) -> None:
        self.platform, self.other = platform, OtherUser(place)
        self.home = platform.home.path
        s3, logs = platform.client("s3"), platform.client("logs")
        s3.create_bucket(Bucket="closed")
        s3.put_object(Bucket="closed", Key="k", Body=BODY)
        logs.create_log_group(logGroupName="g")
        logs.create_log_stream(logGroupName="g", logStreamName="s")
        event = {"timestamp": int(time.time() * 1000), "message": LINE}
        logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
        self.secret = root_secret(self.home)

    def starts_gang(self, name: str) -> Path:
        """Start a process of user code; return its supervisor's control socket."""
        process = ProcessSpec(name="host", argv=("/bin/sh", "-c", "sleep 600"))
        engine = self.platform.app.engine
        assert engine.launch(GangSpec(name=name, processes=(process,))) == Placed()
        return engine.folder(name) / "control"

    def runs(self, gang: str) -> bool:
        """Whether the gang's process has not ended."""
        seen = self.platform.app.engine.see(gang)
        return seen is not None and all(one.state == "running" for one in seen.values())


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with public_place() as place, start(place / "home") as platform:
        yield Scene(place, platform)


def test_without_the_wall_all_of_it_is_read(scene: Scene) -> None:
    """What the wall holds off: with the modes of 0e393ec the same attempts succeed."""
    opened = {path: path.stat().st_mode for path in (scene.home, *scene.home.glob("*.db*"))}
    control = scene.starts_gang("open-gang")
    try:
        for path in (scene.home, scene.home / "runs", control.parent, control):
            opened.setdefault(path, path.stat().st_mode)
            path.chmod(0o777)
        for path in scene.home.glob("*.db*"):
            path.chmod(0o644)
        loot = scene.other.reads_all(scene.home)
        assert scene.secret in loot and BODY in loot and LINE.encode() in loot
        scene.other.tries(STOP, control)
        until = time.monotonic() + 30
        while scene.runs("open-gang"):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        for path, mode in opened.items():
            if path.exists():
                path.chmod(mode & 0o777)


@pytest.mark.control(WALL)
def test_records_are_read_by_nobody(scene: Scene) -> None:
    database = scene.home / "cloche.db"
    paths = [database, *(Path(f"{database}{end}") for end in ("-wal", "-shm"))]
    assert database.exists() and scene.other.reads(*paths) == b""


@pytest.mark.control("At 0e393ec root's secret was in cloche.db-wal, which was 0644.")
def test_the_records_hold_no_secret_even_for_who_reads_them(scene: Scene) -> None:
    # A backup, an attachment to a bug report: whoever has the records has no key.
    session = scene.platform.environment()
    kept = b"".join(path.read_bytes() for path in scene.home.glob("cloche.db*"))
    assert b"access-key/" in kept and session["AWS_ACCESS_KEY_ID"].encode() in kept
    for secret in (
        scene.secret,
        session["AWS_SECRET_ACCESS_KEY"].encode(),
        session["AWS_SESSION_TOKEN"].encode(),
    ):
        assert secret not in kept


@pytest.mark.control(WALL)
def test_keys_are_read_by_nobody(scene: Scene) -> None:
    paths = [*scene.home.glob("secrets.db*"), scene.home / "credentials.json"]
    paths += [*(scene.home / "authority").iterdir()]
    assert scene.other.reads(*paths) == b""
    private = [path for path in paths if path.parent == scene.home]
    assert private and {path.stat().st_mode & 0o777 for path in private} == {0o600}


@pytest.mark.control(WALL)
def test_where_the_server_is_is_told_nobody(scene: Scene) -> None:
    files = [scene.home / name for name in ("server.json", "home.json", "choices.json", "lock")]
    assert scene.other.reads(*files) == b""


@pytest.mark.control(WALL)
def test_objects_and_logs_are_read_by_nobody(scene: Scene) -> None:
    assert scene.other.reads_all(scene.home) == b""


@pytest.mark.control("At 0e393ec `runs` was 0700 already; test_without_the_wall stops the gang.")
def test_a_supervisor_obeys_nobody_else(scene: Scene) -> None:
    control = scene.starts_gang("closed-gang")
    assert scene.other.tries(STOP, control) == b""
    assert scene.runs("closed-gang")


@pytest.mark.control("Known of /proc: a process of the same user reads all of it.")
def test_the_servers_process_is_read_by_nobody(scene: Scene) -> None:
    script = (
        "import os, sys\n"
        "for name in ('environ', 'maps', 'mem', 'root/etc/shadow'):\n"
        " try: loot.write(open(f'/proc/{sys.argv[1]}/{name}', 'rb').read(100))\n"
        " except OSError: pass\n"
        "try:\n"
        " for fd in os.listdir(f'/proc/{sys.argv[1]}/fd'):\n"
        "  loot.write(open(f'/proc/{sys.argv[1]}/fd/{fd}', 'rb').read(100))\n"
        "except OSError: pass\n"
    )
    assert scene.other.tries(script, os.getpid()) == b""


@pytest.mark.control("In a folder of mode 0777 the same script removes the file (checked below).")
def test_nothing_is_removed_or_replaced(scene: Scene) -> None:
    script = "import os, sys\nos.remove(sys.argv[1])\nloot.write(b'gone')"
    mine = scene.other.own.parent / "open"
    mine.mkdir()
    (mine / "file").touch()
    mine.chmod(0o777)
    assert scene.other.tries(script, mine / "file") == b"gone"
    assert scene.other.tries(script, scene.home / "server.json") == b""
    assert (scene.home / "server.json").exists()


@pytest.mark.control("At 0e393ec the folder stayed 0755 and the second look found the secret.")
def test_a_home_that_was_open_is_closed_at_the_next_start() -> None:
    with public_place() as place:
        other, home = OtherUser(place), place / "home"
        with start(home):
            secret = root_secret(home)
        home.chmod(0o755)
        for path in home.iterdir():
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert secret in other.reads_all(home)
        with start(home):
            assert other.reads_all(home) == b""
            assert root_secret(home) == secret
        assert home.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in home.glob("*.db"))


PLANTED = "At 0e393ec the server started there and wrote its keys where the other user reads them."


def refused(home: Path, text: str) -> None:
    """Try to start in a home folder that another user prepared."""
    with pytest.raises(HomeError, match=text), start(home):
        pass


@pytest.mark.control(PLANTED)
def test_a_home_that_another_user_made_is_refused() -> None:
    with public_place() as place:
        other = OtherUser(place)
        home = other.own / "home"
        home.mkdir()
        home.chmod(0o777)
        os.chown(home, NOBODY, NOBODY)
        refused(home, r"belongs to another user \(nobody\), who could read and change all")
        assert other.reads_all(home) == b"" and list(home.iterdir()) == []


@pytest.mark.control(PLANTED)
def test_another_users_link_to_a_home_is_refused() -> None:
    with public_place() as place:
        other, shared = OtherUser(place), place / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        other.tries("import os, sys\nos.symlink(*sys.argv[1:])", other.own, shared / "home")
        assert (shared / "home").is_symlink()
        refused(shared / "home", r"is another user's link \(nobody\), who could turn it elsewhere")
        refused(shared / "home" / "deeper", "is another user's link")
        assert [path.name for path in other.own.iterdir()] == ["loot"]


@pytest.mark.control(PLANTED)
@pytest.mark.parametrize("name", ["cloche.db", "secrets.db", "credentials.json", "runs"])
def test_an_entry_that_leads_elsewhere_is_refused(name: str) -> None:
    with public_place() as place:
        other, home = OtherUser(place), place / "home"
        home.mkdir()
        home.chmod(0o777)
        target = other.own / "target"
        plant = "import os, sys\nopen(sys.argv[1], 'w').close()\nos.symlink(*sys.argv[1:])"
        other.tries(plant, target, home / name)
        assert (home / name).is_symlink()
        refused(home, rf"{name} is a symbolic link")
        assert target.read_bytes() == b""


@pytest.mark.control(PLANTED)
def test_an_entry_of_another_user_is_refused() -> None:
    with public_place() as place:
        other, home = OtherUser(place), place / "home"
        home.mkdir()
        home.chmod(0o777)
        other.tries("import os, sys\nos.mkfifo(sys.argv[1], 0o666)", home / "credentials.json")
        refused(home, r"credentials.json belongs to another user \(nobody\)")


@pytest.mark.control(PLANTED)
def test_a_home_below_a_folder_that_everybody_writes_is_refused() -> None:
    with public_place() as place:
        OtherUser(place)
        loose = place / "loose"
        loose.mkdir()
        loose.chmod(0o777)
        refused(loose / "home", r"loose, above .*/home, can be written by every user")
        loose.chmod(0o1777)
        with start(loose / "home") as platform:
            assert platform.client("s3").list_buckets()["Buckets"] == []


PASSWORDS = """
import os
for number in filter(str.isdigit, os.listdir("/proc")):
    for name in ("cmdline", "environ"):
        try:
            loot.write(open(f"/proc/{number}/{name}", "rb").read())
        except OSError:
            pass
"""
CANARY, PLAIN = "kept-from-the-neighbours", "what-everybody-may-see"


@pytest.mark.control(
    "At 0e393ec bubblewrap's command line held the environment of the job while it ran; here the "
    "job's own arguments are read in the same way."
)
def test_the_environment_of_a_job(scene: Scene) -> None:
    engine = scene.platform.app.engine
    process = ProcessSpec(
        name="host",
        argv=("/bin/sh", "-c", "sleep 600", PLAIN),
        env={"PASSWORD": CANARY},
    )
    assert engine.launch(GangSpec(name="passwords", processes=(process,))) == Placed()
    loot = scene.other.tries(PASSWORDS)
    engine.stop("passwords")
    assert PLAIN.encode() in loot
    assert CANARY.encode() not in loot
