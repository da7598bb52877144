"""`cloche root`: the root user of the account."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import segno
import typer
from botocore.exceptions import BotoCoreError, ClientError

from cloche.cli.aws_client import AwsClient
from cloche.cli.grammar import Command, CommandGroup
from cloche.cli.options import HomeOption, home_of
from cloche.cli.output import Stop, err, out

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Look after the account's root user.",
)
USER, DEVICE = "root", "root-account-mfa-device"
ISSUER = "Amazon Web Services"  # what authenticator apps know, and group by
TRIES = 3


@app.callback()
def root() -> None:
    """Hold the commands about root."""


@app.command(cls=Command)
def mfa(
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Remove root's MFA device: it was lost, or is to be another."),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Give root an MFA device: an app on a phone that shows a code every 30 seconds."""
    iam = AwsClient.of(home_of(home)).aws("iam")
    try:
        devices = iam.list_mfa_devices(UserName=USER)["MFADevices"]
        if reset:
            remove(iam, devices)
        elif devices:
            raise Stop(
                f"Root has an MFA device already: {devices[0]['SerialNumber']}. "
                "To replace it: cloche root mfa --reset"
            )
        else:
            enroll(iam)
    except (BotoCoreError, ClientError) as error:
        raise Stop(f"Root's MFA device was not changed: {error}") from None


def remove(iam: Any, devices: list[dict[str, Any]]) -> None:
    """Remove root's devices."""
    if not devices:
        raise Stop("Root has no MFA device. To give it one: cloche root mfa")
    for device in devices:
        iam.deactivate_mfa_device(UserName=USER, SerialNumber=device["SerialNumber"])
        iam.delete_virtual_mfa_device(SerialNumber=device["SerialNumber"])
        out.print(f"{device['SerialNumber']} is removed.", markup=False)
    out.print("Give root another: cloche root mfa")


def enroll(iam: Any) -> None:
    """Make a device, show it, and enable it with two codes."""
    leftover(iam)
    made = iam.create_virtual_mfa_device(VirtualMFADeviceName=DEVICE)["VirtualMFADevice"]
    serial, seed = made["SerialNumber"], made["Base32StringSeed"].decode()
    try:
        show(serial, seed)
        for left in reversed(range(TRIES)):
            if enabled(iam, serial, last=left == 0):
                out.print(f"Root has the MFA device {serial} now.", markup=False)
                return
    except BaseException:
        iam.delete_virtual_mfa_device(SerialNumber=serial)
        raise


def leftover(iam: Any) -> None:
    """Remove the device of an enrolment that was broken off."""
    pages = iam.get_paginator("list_virtual_mfa_devices").paginate(AssignmentStatus="Unassigned")
    for page in pages:
        for device in page["VirtualMFADevices"]:
            if device["SerialNumber"].rpartition("/")[2] == DEVICE:
                iam.delete_virtual_mfa_device(SerialNumber=device["SerialNumber"])


def show(serial: str, seed: str) -> None:
    """Draw the QR code in characters."""
    account = serial.split(":")[4]
    uri = f"otpauth://totp/{DEVICE}@{account}?secret={seed}&issuer={ISSUER.replace(' ', '%20')}"
    segno.make(uri, error="l", micro=False).terminal(out=sys.stdout, compact=True)
    out.print("Scan this with an authenticator app (Google Authenticator, Aegis, 1Password, …),")
    out.print(f"or type the key into it: {seed}", markup=False)
    out.print("Then type two codes that it shows one after the other; they change every 30 s.")


def enabled(iam: Any, serial: str, *, last: bool) -> bool:
    """Ask for two codes, and tell whether they enabled the device."""
    first = typer.prompt("First code").strip()
    second = typer.prompt("The next code").strip()
    try:
        iam.enable_mfa_device(
            UserName=USER,
            SerialNumber=serial,
            AuthenticationCode1=first,
            AuthenticationCode2=second,
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidAuthenticationCode" or last:
            raise
        err.print("These are not two codes of this device in a row; is the phone's clock right?")
        return False
    return True
