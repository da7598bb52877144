"""Who calls: what the gateway finds out from a signature and every service may ask."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller. `arn` is what GetCallerIdentity answers, `role_arn` the role behind a session.

    A service that asks for itself has its name as `arn`: `sagemaker.amazonaws.com`.
    """

    kind: Literal["root", "user", "assumed-role", "service", "anonymous"]
    account: str
    arn: str
    user_id: str
    role_arn: str | None = None


# Whoever sent a request that nobody signed.
ANONYMOUS = Principal(kind="anonymous", account="", arn="*", user_id="anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key pair that the platform issued; `session_token` and `expires` only for sessions."""

    access_key_id: str
    secret_access_key: str
    principal: Principal
    session_token: str | None = None
    expires: datetime | None = None


class CredentialLookup(Protocol):
    """Where the gateway looks keys up (implemented by the IAM service)."""

    def find(self, access_key_id: str) -> Credential | None:
        """Return the credential, also when it has expired; None: the platform did not issue it."""


class GangDoors(Protocol):
    """Serves the platform to what runs inside a gang's private network (the gateway does it)."""

    async def open(self, gang: str, *, account: str, region: str, role_arn: str) -> None:
        """Serve gateway and proxy on the gang's doors; calls from there act as `role_arn`.

        Call it in every step while the gang runs: the second call costs a look-up, and after a
        restart of the server the first one opens the doors again.
        """

    async def close(self, gang: str) -> None:
        """Stop serving the gang."""
