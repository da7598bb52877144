"""Console passwords: the account's password policy, and hashes (scrypt) in `store.secrets`.

A login profile names its hash: what a crash leaves behind belongs to nobody.
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_passwords_account-policy.html
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from datetime import datetime

from msgspec import UNSET

from cloche.core import executors
from cloche.core.errors import AwsError
from cloche.core.ids import blob_id
from cloche.core.typed import decode, encode
from cloche.records.store import Resource, Store
from cloche.services.iam.record_users import LoginProfile, PasswordPolicyDocument

REGION = ""
KIND, NAME = "password-policy", "password-policy"
COST, BLOCK, PARALLEL = 2**14, 8, 1  # of scrypt: 16 MiB, 50 ms
KEPT = 24  # hashes of one user: as many passwords as may be kept from being used again
SYMBOLS = frozenset("!@#$%^&*()_+-=[]{}|'")
# What holds without a policy: eight characters, of three of the four kinds.
SHORTEST, KINDS, KINDS_THERE_ARE = 8, 3, 4


class Passwords:
    """The password policies of all accounts, and the passwords of all users."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def policy(self, account: str) -> PasswordPolicyDocument | None:
        """Return an account's password policy, or None."""
        row = self.store.get(KIND, account, REGION, NAME)
        return None if row is None else decode(PasswordPolicyDocument, row.document, row.arn)

    async def set_policy(self, account: str, policy: PasswordPolicyDocument, now: datetime) -> None:
        """Write an account's password policy; AlreadyExists, Conflict: somebody else just did."""
        row = self.store.get(KIND, account, REGION, NAME)
        if row is not None:
            await self.store.update(row, document=encode(policy))
            return
        new = Resource(
            account=account,
            region=REGION,
            kind=KIND,
            name=NAME,
            arn=f"{KIND}/{account}",
            created=now,
            modified=now,
            document=encode(policy),
        )
        await self.store.insert(new)

    async def drop_policy(self, account: str) -> bool:
        """Remove an account's password policy; False when it has none."""
        row = self.store.get(KIND, account, REGION, NAME)
        if row is None:
            return False
        await self.store.delete(row)
        return True

    # ------------------------------------------------------------------ passwords

    async def keep(self, password: str, before: LoginProfile | None) -> str:
        """Keep a password's hash, and those of the ones before it; return what names it."""
        made = await executors.PASSWORDS.run(hashed, password)
        earlier = [] if before is None else self._hashes(before.password_id)
        name = blob_id()
        await self.store.secrets.put({secret_name(name): json.dumps([made, *earlier][:KEPT])})
        return name

    async def check(self, profile: LoginProfile, password: str) -> bool:
        """Tell whether a password is the one that a login profile has."""
        current = self._hashes(profile.password_id)[:1]
        return bool(current) and await executors.PASSWORDS.run(among, password, current)

    async def used_before(self, profile: LoginProfile, password: str, count: int) -> bool:
        """Tell whether a password is one of the last that a login profile had."""
        last = self._hashes(profile.password_id)[:count]
        return await executors.PASSWORDS.run(among, password, last)

    async def drop(self, password_id: str) -> None:
        """Forget a password."""
        await self.store.secrets.drop([secret_name(password_id)])

    def _hashes(self, password_id: str) -> list[str]:
        kept = self.store.secrets.get(secret_name(password_id))
        found: list[str] = [] if kept is None else json.loads(kept)
        return found


def secret_name(password_id: str) -> str:
    """Return the name of a password's hashes among the secrets."""
    return f"password/{password_id}"


def hashed(password: str) -> str:
    """Return a password's hash, with its salt. It takes a while."""
    salt = secrets.token_bytes(16)
    return f"{base64.b64encode(salt).decode()}${digest(password, salt)}"


def among(password: str, hashes: list[str]) -> bool:
    """Tell whether one of the hashes is a password's. Each takes a while."""
    for each in hashes:
        salt, _, wanted = each.partition("$")
        if hmac.compare_digest(digest(password, base64.b64decode(salt)), wanted):
            return True
    return False


def digest(password: str, salt: bytes) -> str:
    """Return scrypt's digest in Base64."""
    made = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL)
    return base64.b64encode(made).decode()


# ---------------------------------------------------------------------- what a policy asks


def check_password(policy: PasswordPolicyDocument | None, password: str) -> None:
    """Raise PasswordPolicyViolation when a password is not as the policy asks, or AWS's default."""
    missing = dict(lacking(password))
    if policy is not None:
        asked = {
            "uppercase": policy.require_uppercase_characters,
            "lowercase": policy.require_lowercase_characters,
            "symbol": policy.require_symbols,
            "number": policy.require_numbers,
        }
        if len(password) < policy.minimum_password_length or any(map(asked.get, missing)):
            raise violation("Password does not conform to the account password policy.")
        return
    if len(password) < SHORTEST:
        raise violation(f"Password should have a minimum length of {SHORTEST}")
    more = len(missing) - (KINDS_THERE_ARE - KINDS)
    if more > 0:
        requirements = ", ".join(missing.values())
        raise violation(
            f"Password should meet {more} more of the following requirements: {requirements}"
        )


def lacking(password: str) -> Iterator[tuple[str, str]]:
    """Yield the kinds of characters that a password has none of, and what AWS says then."""
    for kind, there, what in (
        ("uppercase", any("A" <= each <= "Z" for each in password), "uppercase letter"),
        ("lowercase", any("a" <= each <= "z" for each in password), "lowercase letter"),
        ("symbol", any(each in SYMBOLS for each in password), "symbol"),
        ("number", any("0" <= each <= "9" for each in password), "number"),
    ):
        if not there:
            yield kind, f"Password should have at least one {what}"


def reuse_kept_off(policy: PasswordPolicyDocument | None) -> int:
    """Return how many earlier passwords may not be used again."""
    if policy is None or policy.password_reuse_prevention is UNSET:
        return 0
    return policy.password_reuse_prevention


def violation(text: str) -> AwsError:
    """Return the refusal of a password."""
    return AwsError("PasswordPolicyViolation", text)
