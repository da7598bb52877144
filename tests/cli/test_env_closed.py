"""`cloche env` in real shells: closed when Cloche is down, taken back by --unset, kept by `up`."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cli_command import Cloche

from cloche.core.config import Config, Home
from cloche.core.home import HomeError, read_choices, write_choices

# A shell that works with the real AWS, and with names and values that hurt.
REAL = {
    "AWS_PROFILE": "real",
    "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
    "AWS_SECRET_ACCESS_KEY": "real/secret",
    "AWS_SESSION_TOKEN": "real'token\"$(echo run)`echo run`\\",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ENDPOINT_URL_S3": "https://s3.eu-central-1.amazonaws.com",
    "AWS_USE_FIPS_ENDPOINT": "false",
    "AWS_CA_BUNDLE": "/nowhere/with space\nand line.pem",
    "NO_PROXY": "sts.amazonaws.com,.corp",
    "no_proxy": "com,.corp",
}
DUMP = "env -0 >"


class World:
    """Stands in for the internet: a proxy that refuses all, and counts who came."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.listening.close()


def shell(
    cloche: Cloche, name: str, script: str, world: World | None = None, *flags: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script in a shell that was set up for the real AWS."""
    outside = {} if world is None else {"HTTPS_PROXY": world.address, "https_proxy": world.address}
    return subprocess.run(
        [name, *flags, "-c", script],
        env={**cloche.environment, **REAL, **outside, "AWS_MAX_ATTEMPTS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def dumped(path: Path) -> dict[str, str]:
    """Return the environment that `env -0` wrote, without what a shell keeps for itself."""
    entries = path.read_bytes().decode().rstrip("\0").split("\0")
    found = dict(entry.split("=", 1) for entry in entries)
    return {name: value for name, value in found.items() if name not in ("_", "PWD", "OLDPWD")}


def aws(dump: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that AWS's clients and proxies read."""
    return {
        name: value
        for name, value in dump.items()
        if name.upper().startswith(("AWS_", "CLOCHE_ENV", "SAGEMAKER_"))
        or name.upper().endswith("_PROXY")
    }


def stopped(cloche: Cloche) -> Cloche:
    """Have the home of a platform that was up, and is down."""
    cloche.up("--region", "us-west-2")
    cloche("down")
    return cloche


def test_a_shell_is_kept_away_from_aws(cloche: Cloche, world: World, tmp_path: Path) -> None:
    ask = "aws s3 ls; aws sts get-caller-identity --endpoint-url https://sts.amazonaws.com"
    shell(cloche, "bash", f"unset AWS_PROFILE AWS_CA_BUNDLE NO_PROXY no_proxy; {ask}", world)
    assert len(world.asked) >= 2  # without `cloche env` this shell reaches AWS
    world.asked.clear()
    stopped(cloche)
    script = f'eval "$(cloche env)"; echo "code $?"; {DUMP} {tmp_path}/dump; {ask}; true'
    done = shell(cloche, "bash", script, world)
    assert done.stdout == "code 1\n"
    assert "Cloche is not up" in done.stderr
    assert "AWS requests of this shell now go to a closed port: Cloche is not up" in done.stderr
    assert (
        f'Could not connect to the endpoint URL: "http://127.0.0.1:{cloche.port}/"' in done.stderr
    )
    assert world.asked == []
    found = aws(dumped(tmp_path / "dump"))
    before = json.loads(found.pop("CLOCHE_ENV_BEFORE"))
    assert before["AWS_SESSION_TOKEN"] == REAL["AWS_SESSION_TOKEN"]
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"} & found.keys()
    assert "REAL" not in str(found) and "real" not in str(found)
    assert found["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{cloche.port}"
    assert found["HTTPS_PROXY"] == found["https_proxy"] == f"http://127.0.0.1:{cloche.port + 1}"
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,localhost,.corp"
    assert found["AWS_REGION"] == "us-west-2"
    assert found["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] == "false"


def test_a_script_that_stops_at_errors_stops_there(cloche: Cloche) -> None:
    for arguments in ("env", "env --as nobody"):
        script = f'trap "echo \\$AWS_ENDPOINT_URL" EXIT; eval "$(cloche {arguments})"; echo went on'
        done = shell(cloche, "bash", script, None, "-e")
        assert (done.returncode, done.stdout) == (1, "http://127.0.0.1:4599\n"), arguments
    assert not cloche.home.exists()


@pytest.mark.parametrize("file", ["home.json", "choices.json"])
def test_a_home_that_cannot_be_read_keeps_away_too(cloche: Cloche, file: str) -> None:
    cloche.home.mkdir()
    for name in ("home.json", file):
        (cloche.home / name).write_text("half {")
    done = shell(cloche, "bash", 'eval "$(cloche env)"; echo "$? $AWS_ENDPOINT_URL $AWS_PROFILE"')
    assert done.stdout == "1 http://127.0.0.1:4599 \n"


def test_an_engine_that_is_kept_and_unknown_is_named(cloche: Cloche) -> None:
    cloche.home.mkdir(mode=0o700)
    (cloche.home / "choices.json").write_text('{"engine": "ray"}')
    assert "can't be read (there is no engine 'ray')." in cloche("up", code=1).stderr


@pytest.mark.parametrize(("name", "is_up"), [("bash", True), ("sh", False)])
def test_unset_gives_back_what_the_shell_had(
    cloche: Cloche, name: str, is_up: bool, tmp_path: Path
) -> None:
    if is_up:
        cloche.up()
    before, during, after = (tmp_path / name for name in ("before", "during", "after"))
    script = (
        f'{DUMP} {before}; eval "$(cloche env)"; eval "$(cloche env --as root)"; {DUMP} {during}; '
        f'eval "$(cloche env --unset)"; echo "code $?"; {DUMP} {after}'
    )
    done = shell(cloche, name, script)
    assert done.stdout == "code 0\n", done.stderr
    assert dumped(after) == dumped(before)
    found = dumped(during)
    assert found["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:") and "AWS_PROFILE" not in found
    assert found["AWS_ACCESS_KEY_ID"].startswith("AKIA" if is_up else "cloche-is-not-up")


def test_unset_in_a_shell_of_its_own_changes_nothing(cloche: Cloche, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    script = f'{DUMP} {before}; eval "$(cloche env --unset)"; {DUMP} {after}'
    for broken in ("", "export CLOCHE_ENV_BEFORE='half {'; "):
        done = shell(cloche, "bash", broken + script)
        assert "This shell was not set up by `cloche env`: there is nothing" in done.stderr
        assert dumped(before) == dumped(after)


OUTSIDE = (
    *("--public-bucket", "my_data", "--public-bucket", "others"),
    *("--pass-foreign-keys", "--gpu-instances", "refuse"),
)


def test_what_up_was_told_holds_after_a_restart(cloche: Cloche) -> None:
    name = "Cloche.Example.com"
    cloche.up(
        "--region", "eu-west-1", "--allow-egress", "192.0.2.0/24", "--host-name", name, *OUTSIDE
    )
    kept = shell(cloche, "bash", 'eval "$(cloche env)"; env -0').stdout.split("\0")
    cloche("down")
    said = cloche("up", "--detach").stdout  # no port, no region: as the last time
    assert f"Cloche is up at http://127.0.0.1:{cloche.port}" in said and "eu-west-1" in said
    # The shell of before goes on: its address, and the session that it has.
    variables = dict(entry.split("=", 1) for entry in kept if entry)
    asked = subprocess.run(
        ["aws", "sts", "get-caller-identity"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["Arn"].endswith("/SageMaker")
    choices = read_choices(Home(cloche.home))
    assert choices == {
        "host": "127.0.0.1",
        "port": cloche.port,
        "region": "eu-west-1",
        "engine": "local",
        "allow_egress": ("192.0.2.0/24",),
        "host_names": ("cloche.example.com",),
        "public_buckets": ("my_data", "others"),
        "pass_foreign_keys": True,
        "gpu_instances": "refuse",
    }
    shown = cloche("status").stdout
    assert "their instance types are refused" in shown and "my_data, others" in shown
    assert "reads that other accounts' keys signed are passed on" in shown
    for host, status in (("cloche.example.com:80", b"200"), ("other.example.com", b"403")):
        with socket.create_connection(("127.0.0.1", cloche.port), 10) as connection:
            head = f"GET /_cloche/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).split(b" ")[1] == status
    again = cloche("up", "--region", "eu-west-1", "--host-name", name)
    assert "already up" in again.stdout
    other = cloche("up", "--allow-egress", "198.51.100.0/24", code=1).stderr
    assert "already up" in other and "with another --allow-egress. To change it: cloche" in other
    cloche("down")
    back = ("--public-bucket", "none", "--no-pass-foreign-keys", "--gpu-instances", "cpu")
    cloche("up", "--detach", "--allow-egress", "none", "--host-name", "none", *back)
    changed = read_choices(Home(cloche.home))
    assert changed == {
        **choices,
        "allow_egress": (),
        "host_names": (),
        "public_buckets": (),
        "pass_foreign_keys": False,
        "gpu_instances": "cpu",
    }


def test_choices_that_cannot_be_read_are_said(cloche: Cloche) -> None:
    cloche.home.mkdir()
    for content in ("half {", "[]", '{"port": "80"}', '{"host_names": [1]}', '{"region": 1}'):
        (cloche.home / "choices.json").write_text(content)
        with pytest.raises(HomeError, match=r"the options of the last `cloche up`, can't be read"):
            read_choices(Home(cloche.home))


def test_options_of_a_later_release_are_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.choices.write_text('{"port": 4600, "scaling_clock": 60}')
    assert read_choices(home) == {
        "port": 4600,
        "allow_egress": (),
        "host_names": (),
        "public_buckets": (),
    }
    write_choices(Config(home=home, account="123456789012", allow_egress=("192.0.2.0/24",)))
    assert json.loads(home.choices.read_text()) == {
        "host": "127.0.0.1",
        "port": 4599,
        "region": "us-east-1",
        "engine": "local",
        "allow_egress": ["192.0.2.0/24"],
        "host_names": [],
        "public_buckets": [],
        "pass_foreign_keys": False,
        "gpu_instances": "cpu",
        "scaling_clock": 60,
    }


def test_a_home_with_a_name_that_hurts_is_quoted(cloche: Cloche, tmp_path: Path) -> None:
    cloche.home = tmp_path / 'it\'s $(touch run) `touch run` "home"\nand more'
    script = 'cd "$1"; eval "$(cloche env)"; printf %s "$AWS_CA_BUNDLE"; ls run'
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(tmp_path)],
        env=cloche.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{cloche.home}/authority/bundle.pem"
    assert not (tmp_path / "run").exists()


def test_an_open_home_is_closed_and_said(cloche: Cloche) -> None:
    cloche.up()
    os.chmod(cloche.home, 0o755)
    said = cloche("up").stderr
    assert f"{cloche.home} was open to other users of this machine (mode 0755)" in said
    assert "Whoever read it knows root's key. To change the key: cloche down" in said
    assert cloche.home.stat().st_mode & 0o777 == 0o700
    assert "was open" not in cloche("up").stderr
