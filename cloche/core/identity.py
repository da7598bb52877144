"""Who calls: what the gateway finds out from a signature and every service may ask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from cloche.core.typed import Record


class Session(Record, frozen=True, kw_only=True):
    """What temporary keys carry beside who has them, as it was given when they were issued.

    policies, policy_arns: the session policies, their texts and the ARNs of managed ones: where
    there is any, what all of them together do not allow the session may not do.
    tags: the session's tags, those that came down a chain of roles among them; `transitive` are
    the keys of those that go down the chain further. A session's tag hides its role's.
    source_identity: who is behind the session; it goes down a chain unchanged.
    mfa_at_ms: when a device's code was given, milliseconds since 1970. Of GetSessionToken alone:
    a role's session has none, as on AWS.
    from_token: whether GetSessionToken gave it: a user's or root's session, not a role's.
    """

    issued_at_ms: int
    policies: tuple[str, ...] = ()
    policy_arns: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}
    transitive: tuple[str, ...] = ()
    source_identity: str | None = None
    mfa_at_ms: int | None = None
    from_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller. `arn` is what GetCallerIdentity answers, `role_arn` the role behind a session.

    A service that asks for itself has its name as `arn`: `sagemaker.amazonaws.com`. Who signs
    nothing is anonymous: account "", ARN "*". `session` is what temporary keys carry; None:
    long-term keys, or the platform that works for a role.
    """

    kind: Literal["root", "user", "assumed-role", "service", "anonymous"]
    account: str
    arn: str
    user_id: str
    role_arn: str | None = None
    session: Session | None = field(default=None, hash=False)  # tags have no hash


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
        """Return the credential, also when it has expired; None: the platform did not issue it, or
        it works no longer.
        """

    def used(self, credential: Credential, service: str, region: str, now: datetime) -> None:
        """Hear that a request was signed with a credential; neither waits nor fails."""


class GangDoors(Protocol):
    """Serves the platform to what runs inside a gang's private network (the gateway does it)."""

    async def open(self, gang: str, *, account: str, region: str, role_arn: str) -> None:
        """Serve gateway and proxy on the gang's doors; calls from there act as `role_arn`.

        Call it in every step while the gang runs: the second call costs a look-up, and after a
        restart of the server the first one opens the doors again.
        """

    async def close(self, gang: str) -> None:
        """Stop serving the gang."""
