"""`cloche root mfa`: enrolled in a terminal with generated codes, and removed."""

from __future__ import annotations

import subprocess
import time

import pyotp
from cli_command import CLOCHE, Cloche


def enroll(up: Cloche, *, wrong_first: bool = False) -> tuple[int, str]:
    """Answer what `cloche root mfa` asks; return its exit code and what it said."""
    with subprocess.Popen(
        [*CLOCHE, "root", "mfa"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=up.environment,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        said = ""
        while "type the key into it: " not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        code = pyotp.TOTP(said.rpartition("type the key into it: ")[2].split()[0])
        now = time.time()
        answers = [code.at(now - 30), code.at(now)]
        if wrong_first:
            answers = ["000000", "111111", *answers]
        rest, _ = process.communicate("".join(f"{each}\n" for each in answers), timeout=60)
    return process.returncode, said + rest


def serial_of(up: Cloche) -> str:
    account = up.client("sts").get_caller_identity()["Account"]
    return f"arn:aws:iam::{account}:mfa/root-account-mfa-device"


def remove(up: Cloche) -> None:
    up("root", "mfa", "--reset", code=None)


def test_root_gets_a_device(up: Cloche) -> None:
    assert "Root has no MFA device." in up("iam", "lint", code=1).stdout
    assert "has no MFA device: cloche root mfa" in up("status").stdout
    code, said = enroll(up)
    assert code == 0, said
    assert "\u2580" in said or "\u2588" in said  # the QR code
    assert said.endswith(f"Root has the MFA device {serial_of(up)} now.\n")
    (device,) = up.client("iam").list_mfa_devices(UserName="root")["MFADevices"]
    assert device["SerialNumber"] == serial_of(up)
    assert "Root has no MFA device." not in up("iam", "lint", code=1).stdout
    assert "MFA" not in up("status").stdout
    again = up("root", "mfa", code=1)
    assert again.stderr == (
        f"Root has an MFA device already: {serial_of(up)}. To replace it: cloche root mfa --reset\n"
    )
    remove(up)


def test_wrong_codes_are_asked_for_again(up: Cloche) -> None:
    code, said = enroll(up, wrong_first=True)
    assert code == 0, said
    assert "These are not two codes of this device in a row; is the phone's clock right?" in said
    remove(up)


def test_a_lost_device_is_removed_and_that_is_an_event(up: Cloche) -> None:
    enroll(up)
    done = up("root", "mfa", "--reset")
    assert done.stdout == f"{serial_of(up)} is removed.\nGive root another: cloche root mfa\n"
    assert up.client("iam").list_mfa_devices(UserName="root")["MFADevices"] == []
    assert "iam:DeactivateMFADevice" in up("iam", "who", "--action", "DeactivateMFADevice").stdout
    nothing = up("root", "mfa", "--reset", code=1)
    assert nothing.stderr == "Root has no MFA device. To give it one: cloche root mfa\n"


def test_an_enrolment_that_was_broken_off_is_begun_again(up: Cloche) -> None:
    up.client("iam").create_virtual_mfa_device(VirtualMFADeviceName="root-account-mfa-device")
    code, said = enroll(up)
    assert code == 0, said
    remove(up)
