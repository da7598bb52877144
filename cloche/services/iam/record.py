"""What is kept of roles and keys, beside the resources' own columns."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from cloche.core.identity import Principal
from cloche.core.typed import Record


class RoleDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """A role's document, members as IAM's APIs name them; `policies` are ARNs."""

    role_name: str
    role_id: str  # `AROA…`: unique for ever; a role made again under the same name has another
    path: str = "/"
    assume_role_policy_document: str  # as it was sent
    max_session_duration: int = 3600  # seconds
    policies: tuple[str, ...] = ()
    tags: tuple[Mapping[str, str], ...] = ()
    description: str | UnsetType = UNSET


class KeyDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """The document of a key pair; `expiration` (milliseconds since 1970) is a session's."""

    principal: Principal
    expiration: int | UnsetType = UNSET
