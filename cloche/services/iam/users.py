"""Users and groups, and who is in which.

Resources in region "": kind "user" and "group", named in lower case (names ignore case); and a row
of kind "membership" for each user of each group, named `GROUP/USER`, so that a group's users are
found in order. Every change of a membership writes user and group, too: who deletes one of them
at the same time gets Conflict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Literal, Self

from cloche.core.identity import Principal
from cloche.core.typed import decode, encode, readable
from cloche.records.store import Change, Resource, Store
from cloche.services.iam.record import KeyDocument
from cloche.services.iam.record_users import GroupDocument, UserDocument

REGION = ""
ROOT = "<root>"  # no IAM user can be called that
KEYS = ("session", "access-key")


@dataclass(frozen=True, slots=True)
class User:
    """An IAM user; `record` is what the store holds of it."""

    kind: ClassVar[Literal["user"]] = "user"
    record: Resource
    document: UserDocument

    @classmethod
    def of(cls, record: Resource) -> Self:
        """Return the row as a user; BadRecord when it is none."""
        return cls(record, decode(UserDocument, record.document, record.arn))

    @property
    def name(self) -> str:
        """The name without the path."""
        return self.document.user_name

    @property
    def arn(self) -> str:
        """`arn:aws:iam::ACCOUNT:user/PATH/NAME`."""
        return self.record.arn

    @property
    def id(self) -> str:
        """`AIDA…`."""
        return self.document.user_id

    @property
    def principal(self) -> Principal:
        """Who has this user's keys."""
        account = self.record.account
        return Principal(kind="user", account=account, arn=self.arn, user_id=self.id)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of users; `record` is what the store holds of it."""

    kind: ClassVar[Literal["group"]] = "group"
    record: Resource
    document: GroupDocument

    @classmethod
    def of(cls, record: Resource) -> Self:
        """Return the row as a group; BadRecord when it is none."""
        return cls(record, decode(GroupDocument, record.document, record.arn))

    @property
    def name(self) -> str:
        """The name without the path."""
        return self.document.group_name

    @property
    def arn(self) -> str:
        """`arn:aws:iam::ACCOUNT:group/PATH/NAME`."""
        return self.record.arn


class Users:
    """The users and groups of all accounts."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def user(self, account: str, name: str) -> User | None:
        """Return the user of that name (upper and lower case are the same), or None."""
        record = None if name == ROOT else self.store.get("user", account, REGION, name.lower())
        return None if record is None else User.of(record)

    def group(self, account: str, name: str) -> Group | None:
        """Return the group of that name (upper and lower case are the same), or None."""
        record = self.store.get("group", account, REGION, name.lower())
        return None if record is None else Group.of(record)

    def users(self, account: str, after: str | None) -> Iterator[User]:
        """Yield an account's users by name, those after one name; read as they are taken."""
        rows = self.rows("user", account, after)
        return readable(User.of, (row for row in rows if row.name != ROOT))

    def groups(self, account: str, after: str | None) -> Iterator[Group]:
        """Yield an account's groups by name, those after one name; read as they are taken."""
        return readable(Group.of, self.rows("group", account, after))

    def members(self, group: Group, after: str | None = None) -> Iterator[User]:
        """Yield a group's users by name, those after one name; read as they are taken."""
        account, prefix = group.record.account, f"{group.record.name}/"
        # What comes after the name of the group and a slash begins with it, as long as it does.
        for row in self.rows("membership", account, f"{prefix}{after or ''}"):
            if not row.name.startswith(prefix):
                return
            user = self.user(account, row.name.removeprefix(prefix))
            if user is not None:
                yield user

    def rows(self, kind: str, account: str, after: str | None) -> Iterator[Resource]:
        """Yield an account's resources of a kind by name, those after one; read as taken."""
        return self.store.named_after(kind, account, REGION, after)

    # ------------------------------------------------------------------ writes

    async def create(
        self, account: str, document: UserDocument | GroupDocument, now: datetime, *also: Change
    ) -> Resource:
        """Record a user or group; AlreadyExists when the name is taken."""
        new = row(account, document, now)
        await self.store.change([Change(new=new), *also])
        return new

    async def save(
        self, held: User | Group, document: UserDocument | GroupDocument, *also: Change
    ) -> None:
        """Write a document of the same name and path; Conflict when it just changed."""
        await self.store.update(held.record, document=encode(document), also=also)

    async def delete(self, held: User | Group) -> None:
        """Remove a user or group that nothing belongs to; Conflict when it just changed."""
        await self.store.delete(held.record)

    async def add(self, user: User, group: Group, now: datetime) -> None:
        """Put a user into a group that it is not in; Conflict when one of them just changed."""
        document = user.document.replace(groups=(*user.document.groups, group.name))
        touched = Change(old=group.record, new=self.store.newer(group.record))
        added = Change(new=membership(user.record.account, group.name, user.name, now))
        await self.store.update(user.record, document=encode(document), also=(touched, added))

    async def remove(self, user: User, group: Group) -> None:
        """Take a user out of a group that it is in; Conflict when one of them just changed."""
        kept = tuple(name for name in user.document.groups if name.lower() != group.name.lower())
        gone = [Change(old=each) for each in self._memberships(user, group.name)]
        touched = Change(old=group.record, new=self.store.newer(group.record))
        document = user.document.replace(groups=kept)
        await self.store.update(user.record, document=encode(document), also=(touched, *gone))

    async def rename_user(
        self, user: User, document: UserDocument, also: Sequence[Change] = ()
    ) -> None:
        """Write a user under another name or path, and who its keys and sessions say it is.

        AlreadyExists when the name is taken, Conflict when something of it just changed.
        """
        account = user.record.account
        new = renamed(user.record, row(account, document, self.store.clock.now()))
        changes = [Change(old=user.record), Change(new=new)]
        for group in user.document.groups:
            for old in self._memberships(user, group):
                made = membership(account, group, document.user_name, old.created)
                changes += [Change(old=old), Change(new=made)]
        principal = User.of(new).principal
        for kind in KEYS:
            for key in self.store.each(kind, [user.id]):
                held = decode(KeyDocument, key.document, key.arn)
                named = encode(held.replace(principal=principal))
                named["Principal"].pop("session", None)
                changes.append(Change(old=key, new=self.store.newer(key, document=named)))
        await self.store.change([*changes, *also])

    async def rename_group(self, group: Group, document: GroupDocument) -> None:
        """Write a group under another name or path, and so in its users; as `rename_user`."""
        account = group.record.account
        new = renamed(group.record, row(account, document, self.store.clock.now()))
        changes = [Change(old=group.record), Change(new=new)]
        for user in self.members(group) if document.group_name != group.name else ():
            names = tuple(
                document.group_name if name.lower() == group.name.lower() else name
                for name in user.document.groups
            )
            written = encode(user.document.replace(groups=names))
            named = self.store.newer(user.record, document=written)
            changes.append(Change(old=user.record, new=named))
            if document.group_name.lower() != group.name.lower():
                for old in self._memberships(user, group.name):
                    made = membership(account, document.group_name, user.name, old.created)
                    changes += [Change(old=old), Change(new=made)]
        await self.store.change(changes)

    def _memberships(self, user: User, group: str) -> list[Resource]:
        name = f"{group.lower()}/{user.name.lower()}"
        found = self.store.get("membership", user.record.account, REGION, name)
        return [] if found is None else [found]


def row(account: str, document: UserDocument | GroupDocument, now: datetime) -> Resource:
    """Return the record of a user or group."""
    kind, name = (
        ("user", document.user_name)
        if isinstance(document, UserDocument)
        else ("group", document.group_name)
    )
    return Resource(
        account=account,
        region=REGION,
        kind=kind,
        name=name.lower(),
        arn=f"arn:aws:iam::{account}:{kind}{document.path}{name}",
        created=now,
        modified=now,
        document=encode(document),
    )


def renamed(old: Resource, new: Resource) -> Resource:
    """Return a record as it goes on: who read the old one and writes it loses."""
    return replace(new, created=old.created, version=old.version + 1)


def membership(account: str, group: str, user: str, now: datetime) -> Resource:
    """Return the record that says that a user is in a group."""
    name = f"{group.lower()}/{user.lower()}"
    return Resource(
        account=account,
        region=REGION,
        kind="membership",
        name=name,
        arn=f"membership/{account}/{name}",
        created=now,
        modified=now,
    )
