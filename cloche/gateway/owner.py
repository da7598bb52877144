"""Keys for the platform's owner: whoever can read the home folder's `credentials.json`.

On AWS nobody but SageMaker may assume its execution role; a notebook has the role's session from
its instance. `cloche env` gets one here, with a token that only the owner can read.
"""

import hmac
import json
from dataclasses import dataclass

from cloche.core.clock import Clock
from cloche.core.errors import AwsError
from cloche.gateway.asgi import LocalRequest
from cloche.gateway.doors import SESSION_NAME, Sessions, container_credentials
from cloche.gateway.message import Response

SESSION_PATH, END_PATH = "/_cloche/session", "/_cloche/end-processes"
SESSION_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Owner:
    """Issues sessions of one role to who knows the token."""

    sessions: Sessions
    clock: Clock
    role_arn: str
    token: str

    def check(self, request: LocalRequest) -> None:
        """Raise AccessDenied unless the request is a POST with the token."""
        if request.method != "POST":
            raise AwsError("MethodNotAllowed", f"{request.path} takes POST", 405)
        said = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(said, f"Bearer {self.token}".encode()):
            raise AwsError("AccessDenied", "The token is not the one in credentials.json", 403)

    async def session(self, request: LocalRequest) -> Response:
        """Answer `POST /_cloche/session` (`Authorization: Bearer TOKEN`): keys for 12 hours."""
        self.check(request)
        now = self.clock.now()
        try:
            made = await self.sessions.session(self.role_arn, SESSION_NAME, SESSION_S, now)
        except KeyError:
            text = f"The role {self.role_arn} is no more; `cloche env --as root` has root's keys"
            raise AwsError("NoSuchEntity", text, 404) from None
        body = json.dumps(container_credentials(made, self.role_arn)).encode()
        return Response(200, {"content-type": "application/json"}, body)
