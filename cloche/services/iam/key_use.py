"""When each long-term key was last used, and what for: noted in memory, written in batches.

AWS shows it with a delay, too (GetAccessKeyLastUsed).
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from cloche.core.clock import to_ms
from cloche.core.typed import decode, encode
from cloche.records.errors import AlreadyExists, Conflict
from cloche.records.store import Resource, Store
from cloche.services.iam.record_users import KeyUseDocument

REGION = ""
KIND = "access-key-use"
WRITTEN_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class LastUse:
    """One use of a key."""

    moment: datetime
    service: str
    region: str


class KeyUse:
    """Knows when keys were last used. `note` is for the event loop's thread alone."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.noted: dict[str, LastUse] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def note(self, key_id: str, service: str, region: str, now: datetime) -> None:
        """Remember a use; it is on the disk a few seconds later."""
        self.noted[key_id] = LastUse(now, service, region)
        if self.timer is None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(WRITTEN_AFTER_S, self._begin)

    def of(self, key_id: str) -> KeyUseDocument | None:
        """Return the last use of a key, or None."""
        noted = self.noted.get(key_id)
        if noted is not None:
            return document(noted)
        row = self._row(key_id)
        return None if row is None else decode(KeyUseDocument, row.document, row.arn)

    async def drop(self, key_id: str) -> None:
        """Forget a key."""
        self.noted.pop(key_id, None)
        row = self._row(key_id)
        if row is not None:
            await self.store.delete(row)

    async def write(self) -> None:
        """Write what is noted; a key that went meanwhile is left out."""
        taken = self.noted
        written = await asyncio.gather(
            *(self._write(key_id, use) for key_id, use in tuple(taken.items())),
            return_exceptions=True,
        )
        for key_id, use in tuple(taken.items()):
            if taken.get(key_id) is use:
                del taken[key_id]
        for failed in written:
            if isinstance(failed, BaseException):
                raise failed

    async def close(self) -> None:
        """Write what is noted, for the last time."""
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)
        await self.write()

    def _begin(self) -> None:
        self.timer = None
        self.task = asyncio.get_running_loop().create_task(self.write(), name="key use")

    async def _write(self, key_id: str, use: LastUse) -> None:
        key, row = self.store.find(f"access-key/{key_id}"), self._row(key_id)
        if key is None:
            return
        try:
            if row is not None:
                await self.store.update(row, document=encode(document(use)))
            else:
                await self.store.insert(new_row(key, use))
        except (AlreadyExists, Conflict):
            return  # somebody else wrote a later use, or the key went

    def _row(self, key_id: str) -> Resource | None:
        return self.store.find(f"{KIND}/{key_id}")


def new_row(key: Resource, use: LastUse) -> Resource:
    """Return the record of a key's first use."""
    return Resource(
        account=key.account,
        region=REGION,
        kind=KIND,
        name=key.name,
        arn=f"{KIND}/{key.name}",
        created=use.moment,
        modified=use.moment,
        document=encode(document(use)),
    )


def document(use: LastUse) -> KeyUseDocument:
    """Return a use as it is kept."""
    return KeyUseDocument(
        last_used_date=to_ms(use.moment), service_name=use.service, region=use.region
    )
