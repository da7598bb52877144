"""Keys for the platform's owner: whoever can read the home folder's `credentials.json`.

On AWS nobody but SageMaker may assume its execution role; a notebook has the role's session from
its instance. `cloche env` gets one here, with a token that only the owner can read.
"""

from dataclasses import dataclass

from cloche.core.clock import Clock
from cloche.core.errors import AwsError
from cloche.gateway.doors import SESSION_NAME, Sessions, container_credentials
from cloche.gateway.message import Response
from cloche.gateway.own_paths import LocalRequest, local_json

STATUS_PATH, SESSION_PATH = "/_cloche/status", "/_cloche/session"
END_PATH = "/_cloche/end-processes"
SESSION_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class OwnerSessions:
    """Issues sessions of one role; its path is the owner's (`own_paths`)."""

    sessions: Sessions
    clock: Clock
    role_arn: str

    async def session(self, _request: LocalRequest) -> Response:
        """Answer `POST /_cloche/session`: keys for 12 hours."""
        now = self.clock.now()
        try:
            made = await self.sessions.session(self.role_arn, SESSION_NAME, SESSION_S, now)
        except KeyError:
            text = (
                f"The role {self.role_arn} no longer exists; `cloche env --as root` has root's keys"
            )
            raise AwsError("NoSuchEntity", text, 404) from None
        return local_json(200, container_credentials(made, self.role_arn))
