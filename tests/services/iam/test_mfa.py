"""Virtual MFA devices through boto3, of users and of root."""

from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from people import codes, device_of, refused
from PIL import Image

from cloche.core.clock import ManualClock, SystemClock, to_ms
from cloche.services.iam.mfa import WHILE_STEPS, WRONG
from cloche.testing.platform import ACCOUNT, Platform, start

WRONG_CODES = (403, "InvalidAuthenticationCode", "Authentication code for device is not valid.")


def no_device(serial: str) -> tuple[int, str, str]:
    return 404, "NoSuchEntity", f"MFA Device with serial number {serial} does not exist."


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose clock stands still."""
    with start(tmp_path_factory.mktemp("home"), clock=ManualClock(SystemClock().now())) as running:
        yield running


@pytest.fixture(scope="module")
def iam(platform: Platform) -> Any:
    return platform.client("iam", as_="root")


def made(iam: Any, name: str, **more: Any) -> tuple[str, str]:
    device = iam.create_virtual_mfa_device(VirtualMFADeviceName=name, **more)["VirtualMFADevice"]
    return device["SerialNumber"], device["Base32StringSeed"].decode()


def given(*two: str) -> dict[str, str]:
    return {"AuthenticationCode1": two[0], "AuthenticationCode2": two[1]}


def test_a_new_device(iam: Any) -> None:
    device = iam.create_virtual_mfa_device(VirtualMFADeviceName="New", Path="/a/")
    device = device["VirtualMFADevice"]
    serial = f"arn:aws:iam::{ACCOUNT}:mfa/a/New"
    assert device["SerialNumber"] == serial
    assert len(device["Base32StringSeed"]) == 64
    picture = Image.open(BytesIO(device["QRCodePNG"]))
    assert picture.format == "PNG" and picture.width == picture.height > 100
    again = refused(iam.create_virtual_mfa_device, VirtualMFADeviceName="new")
    assert again == (409, "EntityAlreadyExists", "MFA device already exists.")
    listed = iam.list_virtual_mfa_devices(AssignmentStatus="Unassigned")["VirtualMFADevices"]
    assert {"SerialNumber": serial} in listed  # neither the seed nor the code
    iam.delete_virtual_mfa_device(SerialNumber=serial)
    assert refused(iam.delete_virtual_mfa_device, SerialNumber=serial) == no_device(serial)


def test_a_device_is_enabled_with_two_codes_in_a_row(platform: Platform, iam: Any) -> None:
    iam.create_user(UserName="Ann")
    serial, seed = made(iam, "Ann")
    enable = {"UserName": "Ann", "SerialNumber": serial}
    first, second, third = codes(platform, seed, -2, -1, 0)
    for wrong in ((first, third), (second, first), (first, first), ("000000", "000001")):
        assert refused(iam.enable_mfa_device, **enable, **given(*wrong)) == WRONG_CODES
    assert iam.list_mfa_devices(UserName="Ann")["MFADevices"] == []
    iam.enable_mfa_device(**enable, **given(first, second))
    (shown,) = iam.list_mfa_devices(UserName="Ann")["MFADevices"]
    assert (shown["UserName"], shown["SerialNumber"]) == ("Ann", serial)
    (assigned,) = iam.list_virtual_mfa_devices(AssignmentStatus="Assigned")["VirtualMFADevices"]
    assert assigned["User"]["UserName"] == "Ann" and assigned["EnableDate"] == shown["EnableDate"]
    assert refused(iam.enable_mfa_device, **enable, **given(first, second)) == (
        409,
        "EntityAlreadyExists",
        "MFA Device is already in use.",
    )
    conflict = refused(iam.delete_virtual_mfa_device, SerialNumber=serial)
    assert conflict == (409, "DeleteConflict", "MFA VirtualDevice in use. Must deactivate first.")
    assert refused(iam.delete_user, UserName="Ann") == (
        409,
        "DeleteConflict",
        "Cannot delete entity, must delete MFA device first.",
    )
    iam.update_user(UserName="Ann", NewUserName="Anna")
    assert iam.list_mfa_devices(UserName="Anna")["MFADevices"][0]["UserName"] == "Anna"
    iam.deactivate_mfa_device(UserName="Anna", SerialNumber=serial)
    assert iam.list_mfa_devices(UserName="Anna")["MFADevices"] == []
    # The codes that enabled it do not enable it again.
    enable["UserName"] = "Anna"
    assert refused(iam.enable_mfa_device, **enable, **given(first, second)) == WRONG_CODES
    iam.delete_virtual_mfa_device(SerialNumber=serial)
    assert serial not in platform.app.store.secrets.names()
    iam.delete_user(UserName="Anna")


def test_nobody_and_nothing(iam: Any) -> None:
    iam.create_user(UserName="Bob")
    serial, _ = made(iam, "Bobs")
    nobody = {"UserName": "nobody", "SerialNumber": serial}
    missing = (404, "NoSuchEntity", "The user with name nobody cannot be found.")
    assert refused(iam.enable_mfa_device, **nobody, **given("123456", "654321")) == missing
    assert refused(iam.deactivate_mfa_device, **nobody) == missing
    assert refused(iam.list_mfa_devices, UserName="nobody") == missing
    none = f"arn:aws:iam::{ACCOUNT}:mfa/none"
    for call in (serial, none):
        bobs = {"UserName": "Bob", "SerialNumber": call}
        assert refused(iam.deactivate_mfa_device, **bobs) == no_device(call)
        resync = refused(iam.resync_mfa_device, **bobs, **given("123456", "654321"))
        assert resync == no_device(call)


def test_a_device_whose_clock_is_ahead_is_learnt(platform: Platform, iam: Any) -> None:
    iam.create_user(UserName="Early")
    serial, seed = device_of(platform, iam, "Early", "Early")
    early = {"UserName": "Early", "SerialNumber": serial}
    device = platform.app.identity.mfa.find(ACCOUNT, serial)
    assert device is not None
    now = platform.app.clock.now()
    (ahead,) = codes(platform, seed, 8)
    assert platform.call(platform.app.identity.mfa.verify(device, ahead, now)) is False
    iam.resync_mfa_device(**early, **given(*codes(platform, seed, 6, 7)))
    device = platform.app.identity.mfa.find(ACCOUNT, serial)
    assert platform.call(platform.app.identity.mfa.verify(device, ahead, now)) is True


def test_roots_device(platform: Platform, iam: Any) -> None:
    assert iam.list_mfa_devices()["MFADevices"] == []
    assert iam.get_account_summary()["SummaryMap"]["AccountMFAEnabled"] == 0
    serial, _ = device_of(platform, iam, "root", "root-account-mfa-device")
    (shown,) = iam.list_mfa_devices()["MFADevices"]
    assert shown["SerialNumber"] == serial
    listed = iam.list_virtual_mfa_devices(AssignmentStatus="Assigned")["VirtualMFADevices"]
    (root,) = [each["User"] for each in listed if each["SerialNumber"] == serial]
    assert (root["UserId"], root["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
    assert iam.get_account_summary()["SummaryMap"]["AccountMFAEnabled"] == 1
    # Root is nobody else's to name.
    role = platform.client("iam", as_="admin")
    assert refused(role.list_mfa_devices, UserName="root")[1] == "NoSuchEntity"
    iam.deactivate_mfa_device(UserName="root", SerialNumber=serial)
    iam.delete_virtual_mfa_device(SerialNumber=serial)


def test_codes_cannot_be_tried_out(platform: Platform, iam: Any) -> None:
    iam.create_user(UserName="Guessed")
    serial, seed = device_of(platform, iam, "Guessed", "Guessed")
    mfa, now = platform.app.identity.mfa, platform.app.clock.now()

    def tried(code: str, step: int) -> bool:
        device = mfa.find(ACCOUNT, serial)
        assert device is not None
        moment = now + timedelta(seconds=30 * step)
        return bool(platform.call(mfa.verify(device, code, moment)))

    def wrong_one(step: int) -> str:
        near = codes(platform, seed, *range(step - 5, step + 6))
        return next(code for code in ("000000", "000001", "000002") if code not in near)

    begin = WHILE_STEPS - to_ms(now) // 30_000 % WHILE_STEPS  # of the next while
    for _ in range(WRONG):
        assert not tried(wrong_one(begin), begin)
    (right,) = codes(platform, seed, begin)
    assert not tried(right, begin)
    # CONTROL: with one wrong code less before it, the right one is taken, once.
    begin += WHILE_STEPS
    for _ in range(WRONG - 1):
        assert not tried(wrong_one(begin), begin)
    (right,) = codes(platform, seed, begin)
    assert tried(right, begin)
    assert not tried(right, begin)
