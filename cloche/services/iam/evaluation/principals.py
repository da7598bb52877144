"""Principal and NotPrincipal: whom a policy of a resource speaks of, and how directly.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from cloche.core.identity import Principal
from cloche.services.iam.evaluation.documents import listed

EVERYBODY = "*"


class Grant(IntEnum):
    """To whom of a caller a resource's policy grants; the more direct, the greater."""

    NONE = 0
    ACCOUNT = 1  # its account, which has to grant it in turn
    ROLE = 2  # its role: within what boundary and session policy allow
    DIRECT = 3  # itself: the user, the session, everybody


@dataclass(frozen=True, slots=True)
class Principals:
    """A Principal element, or NotPrincipal."""

    aws: frozenset[str]
    services: frozenset[str]
    negated: bool

    def grant(self, caller: Principal) -> Grant:
        """Return how directly it names the caller."""
        if self.negated:
            return Grant.NONE if self._named(caller) else Grant.DIRECT
        return self._named(caller)

    def denied(self, caller: Principal) -> bool:
        """Tell whether a Deny speaks of the caller.

        With NotPrincipal, of all but those whose account, role and own name are all there.
        """
        if not self.negated:
            return self._named(caller) is not Grant.NONE
        if caller.kind == "service":
            return self._named(caller) is Grant.NONE
        own = () if caller.kind == "root" else (caller.arn, caller.role_arn or caller.arn)
        excepted = self.aws.issuperset(own) and not self.aws.isdisjoint(account_names(caller))
        return not excepted and EVERYBODY not in self.aws

    def _named(self, caller: Principal) -> Grant:
        if caller.kind == "service":
            named = not self.services.isdisjoint((EVERYBODY, caller.arn))
            return Grant.DIRECT if named else Grant.NONE
        if EVERYBODY in self.aws or caller.arn in self.aws:
            return Grant.DIRECT
        if caller.role_arn in self.aws:
            return Grant.ROLE
        here = not self.aws.isdisjoint(account_names(caller))
        return Grant.ACCOUNT if here else Grant.NONE


def account_names(caller: Principal) -> tuple[str, str]:
    """Return how a policy names a caller's account."""
    return caller.account, f"arn:aws:iam::{caller.account}:root"


def principals(element: object, *, negated: bool) -> Principals:
    """Return a Principal element's principals; "*" is everybody, services too."""
    by_kind = element if isinstance(element, Mapping) else {"AWS": EVERYBODY, "Service": EVERYBODY}
    return Principals(
        aws=frozenset(listed(by_kind.get("AWS", []))),
        services=frozenset(listed(by_kind.get("Service", []))),
        negated=negated,
    )
