"""`/_cloche/iam/…`: what `cloche iam` asks that no API of AWS has, for the home folder's owner."""

from __future__ import annotations

from itertools import islice

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.events import EventLog
from cloche.gateway.event_paths import number
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest, local_json
from cloche.services.iam import Identity
from cloche.services.iam import suggestion as suggestions
from cloche.services.iam.usage import usage

SUGGESTION_PATH = "/_cloche/iam/suggestion"


class IamPaths:
    """Answers what roles did, and what they need."""

    def __init__(self, identity: Identity, log: EventLog, account: str) -> None:
        self.identity, self.log, self.account = identity, log, account

    async def suggestion(self, request: LocalRequest) -> Response:
        """Answer the smallest policy for what the `role` (a name or ARN) did since `since_ms`."""
        asked = request.query.get("role", "")
        role = self.identity.role_by_arn(asked) or self.identity.role(self.account, asked)
        if role is None or role.record.account != self.account:
            some = islice(self.identity.roles_after(self.account, None), 20)
            names = ", ".join(each.name for each in some)
            raise AwsError("NoSuchEntity", f"There is no role {asked}. There are: {names}", 404)
        since_ms = number(request.query, "since_ms", 0)
        found = await executors.EVENTS.run(usage, self.log, role.arn, since_ms)
        content = {
            "role": role.arn,
            "name": role.name,
            "policy": suggestions.policy(found.done),
            "refused": suggestions.policy(found.refused),
            "counts": found.counts,
            "events": found.events,
            "complete": found.complete,
            "attached": role.policies,
        }
        return local_json(200, content)
