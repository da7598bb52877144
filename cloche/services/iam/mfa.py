"""Virtual MFA devices: seeds, and one-time codes of 30 s (RFC 6238), each taken once.

Resources of kind "mfa" in region "", named in lower case; the status is the id of whom a device is
enabled for (of root the account). The seeds lie in `store.secrets`, under the devices' ARNs.
"""

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import quote

import pyotp
from msgspec import UNSET

from cloche.core.clock import to_ms
from cloche.core.typed import decode, encode, readable
from cloche.records.errors import Conflict
from cloche.records.store import Change, Resource, Store
from cloche.services.iam.record_users import MfaDocument

REGION = ""
KIND = "mfa"
STEP_MS = 30_000
SEED_CHARACTERS = 64  # as AWS's seeds have
ISSUER = "Amazon Web Services"
AROUND = 1  # steps before and after the right one, of which a code is taken too
SEARCHED = 30  # steps before and after now, where two codes are looked for: 15 minutes
# A million codes can be tried out: after so many wrong ones, none is taken for a while.
WRONG, WHILE_STEPS = 10, 10


@dataclass(frozen=True, slots=True)
class Device:
    """A virtual MFA device; `record` is what the store holds of it."""

    record: Resource
    document: MfaDocument

    @classmethod
    def of(cls, record: Resource) -> Self:
        """Return the row as a device; BadRecord when it is none."""
        return cls(record, decode(MfaDocument, record.document, record.arn))

    @property
    def serial_number(self) -> str:
        """`arn:aws:iam::ACCOUNT:mfa/PATH/NAME`."""
        return self.record.arn

    @property
    def owner(self) -> str:
        """The id of whom it is enabled for; of root the account; "" for nobody."""
        return self.record.status


class MfaDevices:
    """The virtual MFA devices of all accounts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.wrong: dict[str, tuple[int, int]] = {}  # by ARN: which while, how many codes

    def find(self, account: str, serial_number: str) -> Device | None:
        """Return an account's device, or None."""
        record = self.store.find(serial_number)
        if record is None or record.kind != KIND or record.account != account:
            return None
        return Device.of(record)

    def of(self, owner: str) -> list[Device]:
        """Return the devices that are enabled for a user's id (of root: the account)."""
        return list(readable(Device.of, self.store.each(KIND, [owner])))

    async def create(
        self, account: str, name: str, path: str, tags: Sequence[dict[str, str]], now: datetime
    ) -> tuple[Device, str]:
        """Return a new device and its seed in Base32; AlreadyExists when the name is taken."""
        document = MfaDocument(virtual_mfa_device_name=name, path=path, tags=tuple(tags))
        record = Resource(
            account=account,
            region=REGION,
            kind=KIND,
            name=name.lower(),
            arn=f"arn:aws:iam::{account}:mfa{path}{name}",
            created=now,
            modified=now,
            document=encode(document),
        )
        await self.store.insert(record)
        seed = pyotp.random_base32(SEED_CHARACTERS)
        await self.store.secrets.put({record.arn: seed})
        return Device(record, document), seed

    async def enable(
        self,
        device: Device,
        owner: str,
        user_name: str | None,
        codes: tuple[str, str],
        now: datetime,
        *also: Change,
    ) -> bool:
        """Enable a device for somebody who has it; False: these are not two codes in a row of it.

        Conflict when it, or what is written with it, just changed.
        """
        step = self._found(device, codes, now)
        if step is None:
            return False
        document = device.document.replace(
            enable_date=to_ms(now),
            user_name=UNSET if user_name is None else user_name,
            drift=step - step_of(now),
            last_step=step,
        )
        await self.store.update(device.record, status=owner, document=encode(document), also=also)
        return True

    async def resync(self, device: Device, codes: tuple[str, str], now: datetime) -> bool:
        """Learn how far a device's clock is ahead; False: these are no two codes in a row of it."""
        step = self._found(device, codes, now)
        if step is None:
            return False
        document = device.document.replace(drift=step - step_of(now), last_step=step)
        await self.store.update(device.record, document=encode(document))
        return True

    async def verify(self, device: Device, code: str, now: datetime) -> bool:
        """Tell whether a code is the device's now; it is not taken again."""
        if self._too_many(device, now):
            return False
        due = step_of(now) + device.document.drift
        steps = range(due - AROUND, due + AROUND + 1)
        step = next(self._fitting(device, code, steps), None)
        if step is None:
            self._count(device, now)
            return False
        self.wrong.pop(device.serial_number, None)
        document = device.document.replace(drift=step - step_of(now), last_step=step)
        try:
            await self.store.update(device.record, document=encode(document))
        except Conflict:
            return False  # somebody else just used it
        return True

    async def disable(self, device: Device) -> None:
        """Let nobody have the device; Conflict when it just changed."""
        document = device.document.replace(enable_date=UNSET, user_name=UNSET)
        await self.store.update(device.record, status="", document=encode(document))

    async def delete(self, device: Device) -> None:
        """Remove a device and its seed; Conflict when it just changed."""
        await self.store.delete(device.record)
        self.wrong.pop(device.serial_number, None)
        await self.store.secrets.drop([device.serial_number])

    def renamed(self, devices: Sequence[Device], user_name: str) -> list[Change]:
        """Return what is written when a user gets another name."""
        return [
            Change(
                old=device.record,
                new=self.store.newer(
                    device.record, document=encode(device.document.replace(user_name=user_name))
                ),
            )
            for device in devices
        ]

    # ------------------------------------------------------------------ codes

    def _found(self, device: Device, codes: tuple[str, str], now: datetime) -> int | None:
        """Return the step of the second of two codes in a row that were not used; None: none."""
        first, second = codes
        if self._too_many(device, now):
            return None
        steps = range(step_of(now) - SEARCHED, step_of(now) + SEARCHED)
        for step in self._fitting(device, first, steps):
            if next(self._fitting(device, second, range(step + 1, step + 2)), None):
                self.wrong.pop(device.serial_number, None)
                return step + 1
        self._count(device, now)
        return None

    def _fitting(self, device: Device, code: str, steps: range) -> Iterator[int]:
        """Yield the steps that a code is right for and that come after the last one used."""
        seed = self.store.secrets.get(device.serial_number)
        if seed is None:
            return
        totp = pyotp.TOTP(seed)
        for step in steps:
            right = totp.generate_otp(step)
            if hmac.compare_digest(right, code) and step > device.document.last_step:
                yield step

    def _too_many(self, device: Device, now: datetime) -> bool:
        period, count = self.wrong.get(device.serial_number, (0, 0))
        return period == step_of(now) // WHILE_STEPS and count >= WRONG

    def _count(self, device: Device, now: datetime) -> None:
        current = step_of(now) // WHILE_STEPS
        period, count = self.wrong.get(device.serial_number, (current, 0))
        self.wrong[device.serial_number] = (current, count + 1 if period == current else 1)


def step_of(now: datetime) -> int:
    """Return how many times 30 s have passed since 1970."""
    return to_ms(now) // STEP_MS


def uri(device: Device, seed: str) -> str:
    """Return what an authenticator application reads from a device's QR code."""
    label = quote(f"{device.document.virtual_mfa_device_name}@{device.record.account}", safe="@")
    return f"otpauth://totp/{label}?secret={seed}&issuer={quote(ISSUER)}"
