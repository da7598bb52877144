"""Virtual MFA devices, of users and of root.

Root is meant by the name `root`, or by the account's id, where root itself calls and no user has
that name.
"""

import io
from collections.abc import Iterator
from typing import Any

import segno
from msgspec import UNSET

from cloche.core import executors
from cloche.core.clock import from_ms
from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, Parameters, Permission
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.resource import Resource
from cloche.records.store import Change
from cloche.services.iam import policy_limits, tags
from cloche.services.iam.entities import (
    already_exists,
    delete_conflict,
    modified_meanwhile,
    no_such,
)
from cloche.services.iam.holder_policies import find_user, user_or_caller
from cloche.services.iam.identity import Identity
from cloche.services.iam.mfa import Device, uri
from cloche.services.iam.operations.users import briefly
from cloche.services.iam.paging import PAGE, first_page, key_of, paged
from cloche.services.iam.permissions_users import new_arns, on_user
from cloche.services.iam.users import User

DEVICES_PER_USER = 8  # IAM quotas
SCALE = 5  # pixels of a module of a QR code
BAD_PATH = (
    "The specified value for path is invalid. It must begin and end with / and contain only "
    "alphanumeric characters and/or / characters."
)
NEW_DEVICE = new_arns("mfa", "VirtualMFADeviceName")
CREATE_DEVICE = (
    Permission("iam:CreateVirtualMFADevice", NEW_DEVICE, keys=(REQUEST_TAGS,)),
    Permission("iam:TagMFADevice", NEW_DEVICE, keys=(REQUEST_TAGS,), when="Tags"),
)


def device_arns(call: Call[Identity], parameters: Parameters) -> list[str]:
    """Return the ARN of a device; a serial number that is none is asked about as its name."""
    serial = parameters["SerialNumber"]
    prefix = f"arn:aws:iam::{call.account}:mfa/"
    return [serial if serial.startswith(prefix) else f"{prefix}{serial.rpartition('/')[2]}"]


@operation(permissions=CREATE_DEVICE)
async def create_virtual_mfa_device(
    call: Call[Identity],
    *,
    VirtualMFADeviceName: str,
    Path: str = "/",
    Tags: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Return a new device: its seed and the QR code of it, for the only time."""
    if not (Path.startswith("/") and Path.endswith("/")):
        raise AwsError("ValidationError", BAD_PATH)
    tags.check(Tags or [])
    try:
        device, seed = await call.service.mfa.create(
            call.account, VirtualMFADeviceName, Path, Tags or [], call.now
        )
    except AlreadyExists as error:
        raise already_exists("MFA device already exists.") from error
    shown = {
        "SerialNumber": device.serial_number,
        "Base32StringSeed": seed.encode(),
        "QRCodePNG": qr_code(uri(device, seed)),
    }
    return {"VirtualMFADevice": shown | ({"Tags": Tags} if Tags else {})}


@operation(permissions=[on_user("iam:EnableMFADevice")])
async def enable_mfa_device(
    call: Call[Identity],
    *,
    UserName: str,
    SerialNumber: str,
    AuthenticationCode1: str,
    AuthenticationCode2: str,
) -> None:
    """Enable a device for a user, or root, that two codes in a row show to have it."""
    record, owner, name = find_owner(call, UserName)
    device = find_device(call, SerialNumber)
    if device.owner:
        raise already_exists("MFA Device is already in use.")
    if len(call.service.mfa.of(owner)) >= DEVICES_PER_USER:
        raise policy_limits.exceeded("MFADevicesPerUser", DEVICES_PER_USER)
    codes = (AuthenticationCode1, AuthenticationCode2)
    # The user's row, too: who deletes the user at the same time gets Conflict, or wins.
    touched = Change(old=record, new=call.store.newer(record))
    try:
        right = await call.service.mfa.enable(device, owner, name, codes, call.now, touched)
    except Conflict as error:
        raise modified_meanwhile() from error
    if not right:
        raise wrong_codes()


@operation(permissions=[on_user("iam:ResyncMFADevice")])
async def resync_mfa_device(
    call: Call[Identity],
    *,
    UserName: str,
    SerialNumber: str,
    AuthenticationCode1: str,
    AuthenticationCode2: str,
) -> None:
    """Learn how far the clock of a user's device is ahead, or behind."""
    device = enabled_device(call, UserName, SerialNumber)
    try:
        right = await call.service.mfa.resync(
            device, (AuthenticationCode1, AuthenticationCode2), call.now
        )
    except Conflict as error:
        raise modified_meanwhile() from error
    if not right:
        raise wrong_codes()


@operation(permissions=[on_user("iam:DeactivateMFADevice")])
async def deactivate_mfa_device(
    call: Call[Identity], *, SerialNumber: str, UserName: str | None = None
) -> None:
    """Take a device from its user; it is there still, for nobody."""
    device = enabled_device(call, UserName, SerialNumber)
    try:
        await call.service.mfa.disable(device)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[Permission("iam:DeleteVirtualMFADevice", device_arns)])
async def delete_virtual_mfa_device(call: Call[Identity], *, SerialNumber: str) -> None:
    """Remove a device that is enabled for nobody."""
    device = find_device(call, SerialNumber)
    if device.owner:
        raise delete_conflict("MFA VirtualDevice in use. Must deactivate first.")
    try:
        await call.service.mfa.delete(device)
    except Conflict as error:
        raise modified_meanwhile() from error


@operation(permissions=[on_user("iam:ListMFADevices")])
def list_mfa_devices(
    call: Call[Identity],
    *,
    UserName: str | None = None,
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the devices of a user, or of who calls."""
    _, owner, name = find_owner(call, UserName)
    devices = sorted(call.service.mfa.of(owner), key=lambda device: device.serial_number)
    page = paged(devices, [device.serial_number for device in devices], Marker, MaxItems)
    listed = [
        {
            "UserName": "root" if name is None else name,
            "SerialNumber": device.serial_number,
            **enabled_since(device),
        }
        for device in page.pop("items")
    ]
    return {"MFADevices": listed, **page}


@operation(permissions=[Permission("iam:ListVirtualMFADevices")], on=executors.RECORDS)
def list_virtual_mfa_devices(
    call: Call[Identity],
    *,
    AssignmentStatus: str = "Any",
    Marker: str | None = None,
    MaxItems: int = PAGE,
) -> dict[str, Any]:
    """Return the account's virtual devices, with whom they are enabled for."""
    behind = key_of(Marker)

    def listed() -> Iterator[tuple[str, dict[str, Any]]]:
        for row in call.service.users.rows("mfa", call.account, behind):
            device = Device.of(row)
            if AssignmentStatus == "Any" or (AssignmentStatus == "Assigned") == bool(device.owner):
                yield row.name, described(call, device)

    page = first_page(listed(), MaxItems)
    return {"VirtualMFADevices": page.pop("items"), **page}


# ---------------------------------------------------------------------- helpers


def find_owner(call: Call[Identity], name: str | None) -> tuple[Resource, str, str | None]:
    """Return whose devices are meant: the record, the id, the name (None: of root)."""
    by_root = call.principal.kind == "root"
    user: User | None = None
    if name is not None:
        user = call.service.users.user(call.account, name)
    if user is None and by_root and name in (None, "root", call.account):
        root = call.service.root(call.account)
        assert root is not None
        return root, call.account, None
    user = user or (user_or_caller(call, None) if name is None else find_user(call, name))
    return user.record, user.id, user.name


def find_device(call: Call[Identity], serial_number: str) -> Device:
    """Return the account's device, or raise NoSuchEntity."""
    device = call.service.mfa.find(call.account, serial_number)
    if device is None:
        raise no_device(serial_number)
    return device


def enabled_device(call: Call[Identity], name: str | None, serial_number: str) -> Device:
    """Return a device that is enabled for this user, or raise NoSuchEntity."""
    _, owner, _ = find_owner(call, name)
    device = find_device(call, serial_number)
    if device.owner != owner:
        raise no_device(serial_number)
    return device


def no_device(serial_number: str) -> AwsError:
    """Return the refusal of a device that is not there."""
    return no_such(f"MFA Device with serial number {serial_number} does not exist.")


def wrong_codes() -> AwsError:
    """Return the refusal of codes that are not two in a row of the device."""
    text = "Authentication code for device is not valid."
    return AwsError("InvalidAuthenticationCode", text, 403)


def qr_code(text: str) -> bytes:
    """Return a QR code as a PNG."""
    picture = io.BytesIO()
    segno.make(text, error="m", micro=False).save(picture, kind="png", scale=SCALE)
    return picture.getvalue()


def enabled_since(device: Device) -> dict[str, Any]:
    """Return since when a device is enabled, as the API shows it."""
    since = device.document.enable_date
    return {} if since is UNSET else {"EnableDate": from_ms(since)}


def described(call: Call[Identity], device: Device) -> dict[str, Any]:
    """Return a device as lists show it."""
    shown: dict[str, Any] = {"SerialNumber": device.serial_number, **enabled_since(device)}
    name = device.document.user_name
    if device.owner == call.account:
        root = call.service.root(call.account)
        assert root is not None
        shown["User"] = {"UserId": call.account, "Arn": root.arn, "CreateDate": root.created}
    elif name is not UNSET:
        user = call.service.users.user(call.account, name)
        if user is not None:
            shown["User"] = briefly(user)
    return shown
