"""Keys for the platform's owner: whoever can read the home folder's `credentials.json`.

On AWS nobody but SageMaker may assume its execution role; a notebook has the role's session from
its instance. `cloche env` gets one here, or that of another role or user, with a token that only
the owner can read.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from cloche.core.clock import Clock
from cloche.core.identity import Credential
from cloche.gateway.doors import container_credentials
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest, local_json

STATUS_PATH, SESSION_PATH = "/_cloche/status", "/_cloche/session"
END_PATH = "/_cloche/end-processes"
SESSION_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class OwnerSessions:
    """Gives out keys; its path is the owner's (`own_paths`).

    issue: returns keys that last so many seconds, for whom `--as` names; AwsError: there is none.
    """

    issue: Callable[[str, int, datetime], Awaitable[Credential]]
    clock: Clock

    async def session(self, request: LocalRequest) -> Response:
        """Answer `POST /_cloche/session?as=NAME`: keys for 12 hours, by default of the role."""
        made = await self.issue(request.query.get("as", "role"), SESSION_S, self.clock.now())
        who = made.principal
        return local_json(200, container_credentials(made, who.role_arn or who.arn))
