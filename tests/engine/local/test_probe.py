"""What the probe finds, and what it advises."""

from pathlib import Path

import pytest

from cloche.engine.local.probe import (
    OLDEST_BWRAP,
    SETTINGS,
    bwrap_version,
    diagnose,
    find_bwrap,
    probe,
    system_options,
)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "Namespaces are refused (kernel/unprivileged_userns_clone is 0): "
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "Namespaces are refused (kernel/apparmor_restrict_unprivileged_userns is 1): "
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "Namespaces are refused (user/max_user_namespaces is 0): "
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
    ],
)
def test_advice(tmp_path: Path, name: str, value: str, advice: str) -> None:
    for setting, (refusing, _command) in SETTINGS.items():
        file = tmp_path / setting
        file.parent.mkdir(exist_ok=True)
        file.write_text("1\n" if refusing == "0" else "0\n")
    (tmp_path / name).write_text(value + "\n")
    assert diagnose("bwrap: no", tmp_path) == (advice, "The trial run said: bwrap: no")


def test_a_bwrap_that_is_new_enough() -> None:
    found = find_bwrap()
    assert found is not None and bwrap_version(found) >= OLDEST_BWRAP
    machine = probe()
    assert machine.program.endswith("bwrap") and machine.isolation == "full"


def test_what_every_sandbox_sees(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib64").mkdir()
    (tmp_path / "etc" / "ssl").mkdir(parents=True)
    (tmp_path / "etc" / "python3.11").mkdir()
    (tmp_path / "etc" / "shadow").write_text("secret")
    assert system_options(tmp_path) == [
        ("--ro-bind", "/usr", "/usr"),
        ("--symlink", "usr/bin", "/bin"),
        ("--ro-bind", "/lib64", "/lib64"),
        ("--ro-bind", "/etc/python3.11", "/etc/python3.11"),
        ("--ro-bind", "/etc/ssl", "/etc/ssl"),
    ]
