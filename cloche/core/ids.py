"""Random names: the one place that draws them, so that tests can hand in their own."""

import secrets
import uuid

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# What every session token of this platform begins with, so that it is known wherever it is seen.
SESSION_TOKEN_MARK = "ClocheSessionToken"
SECRET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def request_id() -> str:
    """Return a request id as AWS's services give one: a UUID."""
    return str(uuid.uuid4())


def blob_id() -> str:
    """Return 32 hexadecimal digits, unique."""
    return uuid.uuid4().hex


def unique_id(prefix: str, length: int = 21) -> str:
    """Return an IAM unique identifier: `AKIA` and `ASIA` keys take 20 in all, others 21."""
    return prefix + "".join(secrets.choice(UPPER) for _ in range(length - len(prefix)))


def secret_access_key() -> str:
    """Return 40 characters, as IAM's secret access keys have."""
    return "".join(secrets.choice(SECRET) for _ in range(40))


def session_token() -> str:
    """Return a session token: opaque, 256 characters."""
    characters = (secrets.choice(SECRET) for _ in range(256 - len(SESSION_TOKEN_MARK)))
    return SESSION_TOKEN_MARK + "".join(characters)
