"""`cloche up`, `down`, `status`: what goes wrong is said, and nothing is lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest
from cli_command import CLOCHE, Cloche, until
from typer.testing import CliRunner

from cloche.cli import app
from cloche.cli.down import is_alive
from cloche.cli.output import Stop
from cloche.core.config import Home
from cloche.core.home import HomeError, prepare, read_settings
from cloche.testing.platform import free_port


def test_up_says_where_when_it_answers_and_down_stops_it(cloche: Cloche) -> None:
    said = cloche.up().stdout
    address = f"http://127.0.0.1:{cloche.port}"
    assert f"Cloche is up at {address}" in said
    assert str(cloche.home / "server.log") in said
    with urllib.request.urlopen(f"{address}/_cloche/health", timeout=10) as answer:
        assert json.loads(answer.read())["status"] == "ok"
    kept = json.loads((cloche.home / "server.json").read_text())
    assert kept["address"] == address and kept["started"] and kept["version"]
    assert (cloche.home / "credentials.json").stat().st_mode & 0o777 == 0o600

    status = " ".join(cloche("status").stdout.split())
    for text in (address, "0 running", "none", "CPUs", "isolation", "on disk"):
        assert text in status, status

    assert "jobs hold 0 of " in status and "; endpoints 0 of " in status

    pid, parent = cloche.pid, cloche.parent
    assert f"(pid {pid}, parent {parent})" in status and "restarts" not in status
    log = (cloche.home / "server.log").read_text()
    assert f" INFO cloche.server: Cloche {kept['version']} serves at {address}\n" in log
    assert "Cloche is down; everything is kept." in cloche("down").stdout
    assert not (cloche.home / "server.json").exists()
    assert not is_alive(pid) and not is_alive(parent)
    assert cloche("status", code=3).stderr == (
        f"Cloche is not up (home folder {cloche.home}). Start it with: cloche up\n"
    )


def test_up_twice_says_that_it_is_up(cloche: Cloche) -> None:
    cloche.up()
    pid = cloche.pid
    again = cloche("up", "--detach")
    assert f"already up at http://127.0.0.1:{cloche.port} (pid {pid})" in again.stdout
    assert cloche.pid == pid
    other = cloche("up", "--detach", "--port", str(free_port()), code=1)
    assert "already up" in other.stderr and "To move it: cloche down" in other.stderr


def test_a_port_in_use_names_port_and_process(cloche: Cloche) -> None:
    with socket.create_server(("127.0.0.1", cloche.port + 1)):
        said = cloche.up(code=1).stderr
    assert f"127.0.0.1:{cloche.port + 1} is in use by " in said
    assert f"(pid {os.getpid()})" in said
    assert "choose another port: cloche up --port" in said
    assert not (cloche.home / "server.json").exists()
    cloche.up("--account-id=111122223333")  # nothing was settled


def test_a_newer_home_is_refused_and_not_changed(cloche: Cloche) -> None:
    cloche.home.mkdir()
    newer = {"format": 99, "version": "9.9", "account": "123456789012", "region": "us-east-1"}
    (cloche.home / "home.json").write_text(json.dumps(newer))
    said = cloche.up(code=1).stderr
    assert "made by a newer Cloche (9.9, format 99; this one reads 2). Nothing was changed" in said
    assert [path.name for path in cloche.home.iterdir()] == ["home.json"]
    assert json.loads((cloche.home / "home.json").read_text()) == newer


@pytest.mark.parametrize("content", ["", "{", '{"format": "x"}', "[]"])
def test_damaged_settings_are_refused(cloche: Cloche, content: str) -> None:
    cloche.home.mkdir()
    (cloche.home / "home.json").write_text(content)
    with pytest.raises(HomeError, match="can't be read"):
        read_settings(Home(cloche.home))


def test_a_home_that_is_no_folder_is_refused(cloche: Cloche) -> None:
    cloche.home.write_text("a file")
    assert f"{cloche.home} can't be made" in cloche.up(code=1).stderr


def test_a_home_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the question to the kernel is answered here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HomeError, match="can't be written by this user"):
        prepare(Home(tmp_path))


def test_a_full_disk_is_said_before_anything_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil._ntuple_diskusage(2**30, 2**30 - 2**23, 2**23)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    with pytest.raises(HomeError, match="is full: 8 MiB are free, 16 are needed"):
        prepare(Home(tmp_path))


def test_after_kill_9_up_works_again_with_the_same_account(cloche: Cloche) -> None:
    """The server ends with its parent: none is left that keeps the home folder and the ports."""
    cloche.up()
    keys = json.loads((cloche.home / "credentials.json").read_text())
    cloche.client("s3").create_bucket(Bucket="kept-bucket")
    pid, parent = cloche.pid, cloche.parent
    os.kill(parent, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    assert (cloche.home / "server.json").exists()  # stale
    assert cloche("status", code=3).stderr == (
        f"Cloche is not up (home folder {cloche.home}). The last server was killed, or given up "
        f"after it had died again and again; its log: {cloche.home}/server.log. Start it with: "
        "cloche up\n"
    )
    cloche.up()
    assert not is_alive(pid) and not is_alive(parent) and pid != cloche.pid
    again = json.loads((cloche.home / "credentials.json").read_text())
    assert [again[name] for name in ("account", "access_key_id", "role_arn")] == [
        keys[name] for name in ("account", "access_key_id", "role_arn")
    ]
    buckets = cloche.client("s3").list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["kept-bucket"]


def test_a_server_that_dies_is_started_again(cloche: Cloche) -> None:
    cloche.up()
    credentials = (cloche.home / "credentials.json").read_text()
    cloche.client("s3").create_bucket(Bucket="kept-bucket")
    s3, pid, parent = cloche.client("s3"), cloche.pid, cloche.parent
    assert psutil.Process(parent).memory_info().rss < 20 * 2**20
    os.kill(pid, signal.SIGKILL)
    # Nobody waits for it but the commands and the clients, by themselves.
    status = " ".join(cloche("status").stdout.split())
    assert f"(pid {cloche.pid}, parent {parent})" in status and pid != cloche.pid
    assert "restarts 1; the server before this one was killed by SIGKILL" in status
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["kept-bucket"]
    assert (cloche.home / "credentials.json").read_text() == credentials
    log = (cloche.home / "server.log").read_text()
    told = f"The server (pid {pid}) was killed by SIGKILL; it is started again\n"
    assert f" ERROR cloche.server: {told}" in log
    address = f"http://127.0.0.1:{cloche.port}"
    until(lambda: (cloche.home / "server.log").read_text().count(f" serves at {address}\n") == 2)


def test_a_server_that_is_asked_to_end_ends_its_parent(cloche: Cloche) -> None:
    cloche.up()
    pid, parent = cloche.pid, cloche.parent
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(parent))
    assert not is_alive(pid) and not (cloche.home / "server.json").exists()


def test_in_the_foreground_a_signal_stops_it(cloche: Cloche) -> None:
    server = subprocess.Popen(
        [*CLOCHE, "up", "--port", str(cloche.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cloche.environment,
    )
    assert server.stdout is not None
    said = [server.stdout.readline()]
    assert f"Cloche is up at http://127.0.0.1:{cloche.port}" in said[0]
    # Printed when it answers, not before.
    with socket.create_connection(("127.0.0.1", cloche.port), 5):
        pass
    server.send_signal(signal.SIGINT)
    said += server.stdout.readlines()
    assert server.stderr is not None
    errors = server.stderr.read()
    assert server.wait(30) == 0, errors
    assert "Ctrl-C" in "".join(said) and "Stopping" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--engine", "ray"), "There is no engine 'ray'; there is: local"),
        (("--allow-egress", "here"), "--allow-egress takes a network such as 192.168.1.0/24"),
        (("--account-id", "12"), "--account-id takes 12 digits, not '12'"),
        (("--region", "here"), "--region takes a name such as us-east-1, not 'here'"),
        (("--root-access-key-id", "AKIA1"), "--root-secret-access-key, or neither"),
    ],
)
def test_what_is_wrongly_asked_is_said(cloche: Cloche, options: tuple[str, ...], text: str) -> None:
    with pytest.raises(Stop) as stop:
        app(["up", "--home", str(cloche.home), *options], standalone_mode=False)
    assert text in str(stop.value) and stop.value.code == 2
    assert not cloche.home.exists()


def test_account_and_root_keys_can_be_chosen(cloche: Cloche) -> None:
    cloche.up(
        "--account-id=111122223333",
        "--root-access-key-id=AKIAIOSFODNN7EXAMPLE",
        "--root-secret-access-key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "--region=eu-west-1",
    )
    assert "wJalrXUt" not in " ".join(psutil.Process(cloche.pid).cmdline())
    said = cloche("env", "--as", "root").stdout
    assert "export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE" in said
    assert "export AWS_REGION=eu-west-1" in said
    asked = cloche("run", "--as", "root", "--", "aws", "sts", "get-caller-identity").stdout
    assert json.loads(asked)["Arn"] == "arn:aws:iam::111122223333:root"
    cloche("down")
    other = cloche.up("--account-id=999999999999", code=1).stderr
    assert "is the home of account 111122223333; --account-id can't change it" in other


def test_every_command_has_help() -> None:
    runner = CliRunner()
    for command in ("up", "down", "status", "env", "run", "tour"):
        said = runner.invoke(app, [command, "--help"]).output
        assert "Usage:" in said and "--home" in said
    assert runner.invoke(app, ["--version"]).output.startswith("cloche 0.")


CANARY = """
import os, pathlib
with open({path!r}, "a") as file:
    file.write(pathlib.Path("/proc/self/cmdline").read_text().replace("\\0", " ") + "\\n")
"""


def test_packages_of_the_users_python_are_not_the_servers(cloche: Cloche, tmp_path: Path) -> None:
    """The control is in the same file: the command itself does import what PYTHONPATH has."""
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(CANARY.format(path=str(seen)))
    cloche.variables["PYTHONPATH"] = str(tmp_path)
    cloche.up()
    lines = seen.read_text().splitlines()
    assert any(" -m cloche up --detach" in line for line in lines)
    assert not any("cloche.server" in line for line in lines), lines
