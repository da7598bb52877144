"""How many connections a listener keeps: first to go is who has never asked anything."""

import resource
from collections import OrderedDict
from typing import Protocol

# Of what the process may open: files, sockets of sandboxes and the database need the rest.
SHARE = 4
SILENT, WAITING, ALL = 256, 1024, 2048


class Member(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close at once."""


class Crowd:
    """The connections of one listener. Beyond a bound the one that has waited longest is closed.

    `scale` makes it smaller: a gang's door has a part of what the platform's own port has.
    """

    def __init__(self, scale: float = 1.0) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = max(16, int(scale * min(ALL, files // SHARE)))
        self.most_waiting = max(8, min(int(scale * WAITING), self.most // 2))
        self.most_silent = max(4, min(int(scale * SILENT), self.most // 4))
        self.most_upgraded = self.most // 4
        self.members: set[Member] = set()
        self.upgraded: set[Member] = set()  # WebSockets: never pushed out, so they are few
        self.silent: OrderedDict[Member, None] = OrderedDict()  # sent no whole head yet
        self.waiting: OrderedDict[Member, None] = OrderedDict()  # answered, and kept open

    def arrived(self, member: Member) -> None:
        """Take a new connection."""
        self.members.add(member)
        self.silent[member] = None
        if len(self.silent) > self.most_silent:
            self._close(self.silent)
        if len(self.members) > self.most:
            self._close(self.waiting or self.silent)

    def busy(self, member: Member) -> None:
        """Note that a request is under way."""
        self.silent.pop(member, None)
        self.waiting.pop(member, None)

    def waits(self, member: Member) -> None:
        """Note that the connection waits for another request."""
        self.silent.pop(member, None)
        self.waiting[member] = None
        self.waiting.move_to_end(member)
        if len(self.waiting) > self.most_waiting:
            self._close(self.waiting)

    def upgrade(self, member: Member) -> bool:
        """Note that the connection becomes a WebSocket; False when there are too many."""
        if len(self.upgraded) >= self.most_upgraded:
            return False
        self.upgraded.add(member)
        return True

    def left(self, member: Member) -> None:
        """Forget a connection."""
        self.members.discard(member)
        self.upgraded.discard(member)
        self.busy(member)

    def _close(self, among: "OrderedDict[Member, None]") -> None:
        oldest = next(iter(among))
        self.left(oldest)
        oldest.abort()
