"""What is kept of roles, policies and keys, beside the resources' own columns."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType, field

from cloche.core.identity import Principal, Session
from cloche.core.typed import Record


class RoleDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """A role's document, members as IAM's APIs name them; `policies` are ARNs."""

    role_name: str
    role_id: str  # `AROA…`: unique for ever; a role made again under the same name has another
    path: str = "/"
    assume_role_policy_document: str  # as it was sent
    max_session_duration: int = 3600  # seconds
    policies: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)  # name -> document, as it was sent
    permissions_boundary: str | UnsetType = UNSET  # the ARN of a managed policy
    tags: tuple[Mapping[str, str], ...] = ()
    description: str | UnsetType = UNSET


class PolicyHolder(Record, frozen=True, kw_only=True, rename="pascal"):
    """What roles, users and groups have in common: policies. `groups` (names) are a user's."""

    policies: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)
    permissions_boundary: str | UnsetType = UNSET
    groups: tuple[str, ...] = ()


class PolicyVersion(Record, frozen=True, kw_only=True, rename="pascal"):
    """One version of a customer managed policy."""

    version_id: str  # "v1"
    document: str  # as it was sent
    create_date: int  # milliseconds since 1970


class PolicyDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """The document of a customer managed policy, members as IAM's APIs name them."""

    policy_name: str
    policy_id: str  # `ANPA…`
    path: str = "/"
    description: str | UnsetType = UNSET
    versions: tuple[PolicyVersion, ...]  # oldest first
    default_version_id: str = "v1"
    made: int = 1  # how many versions there ever were: numbers are not used again
    tags: tuple[Mapping[str, str], ...] = ()


class KeyDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """The document of a key pair; `expiration` (milliseconds since 1970) is a session's.

    `session` is what a session carries, where it carries more than when it was issued. An access
    key that is not `active` works no longer.
    """

    principal: Principal
    session: Session | UnsetType = UNSET
    expiration: int | UnsetType = UNSET
    active: bool | UnsetType = UNSET
