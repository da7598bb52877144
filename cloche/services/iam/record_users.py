"""What is kept of users, groups and what belongs to them, beside the resources' own columns."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType, field

from cloche.core.typed import Record


class LoginProfile(Record, frozen=True, kw_only=True, rename="pascal"):
    """That a user has a console password: when it was made and changed, milliseconds since 1970.

    password_id: what names its hash among the secrets.
    """

    password_id: str
    create_date: int
    changed: int
    password_reset_required: bool = False


class UserDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """A user's document, members as IAM's APIs name them; `policies` are ARNs, `groups` names."""

    user_name: str
    user_id: str  # `AIDA…`: a user made again under the same name has another
    path: str = "/"
    policies: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)  # name -> document, as it was sent
    groups: tuple[str, ...] = ()
    permissions_boundary: str | UnsetType = UNSET  # the ARN of a managed policy
    tags: tuple[Mapping[str, str], ...] = ()
    login_profile: LoginProfile | UnsetType = UNSET


class GroupDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """A group's document, members as IAM's APIs name them."""

    group_name: str
    group_id: str  # `AGPA…`
    path: str = "/"
    policies: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)


class InstanceProfileDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """An instance profile's document; its status names the role, so that a role's are found."""

    instance_profile_name: str
    instance_profile_id: str  # `AIPA…`
    path: str = "/"
    role: str | UnsetType = UNSET  # a name
    tags: tuple[Mapping[str, str], ...] = ()


class MfaDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """A virtual MFA device's document; its status is the id of whom it is enabled for.

    user_name: of whom it is enabled for, where that is no root user.
    drift: by how many steps of 30 s the device's clock is ahead.
    last_step: the step of the last code that was taken; none of it or before it is taken again.
    """

    path: str = "/"
    virtual_mfa_device_name: str
    enable_date: int | UnsetType = UNSET  # milliseconds since 1970
    user_name: str | UnsetType = UNSET
    drift: int = 0
    last_step: int = 0
    tags: tuple[Mapping[str, str], ...] = ()


class PasswordPolicyDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """An account's password policy, members as IAM's APIs name them, with AWS's defaults."""

    minimum_password_length: int = 6
    require_symbols: bool = False
    require_numbers: bool = False
    require_uppercase_characters: bool = False
    require_lowercase_characters: bool = False
    allow_users_to_change_password: bool = False
    max_password_age: int | UnsetType = UNSET  # days
    password_reuse_prevention: int | UnsetType = UNSET
    hard_expiry: bool | UnsetType = UNSET


class KeyUseDocument(Record, frozen=True, kw_only=True, rename="pascal"):
    """When an access key was last used, milliseconds since 1970, and what for."""

    last_used_date: int
    service_name: str
    region: str
