"""What AssumeRole asks of IAM: it, and TagSession and SetSourceIdentity where these are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloche.permissions import (
    REQUEST_TAGS,
    Permission,
    arns_at,
    key,
    list_key,
)

Parameters = Mapping[str, Any]


TRANSITIVE = list_key("sts:TransitiveTagKeys", "TransitiveTagKeys")
SOURCE = key("sts:SourceIdentity", "SourceIdentity")
KEYS = (
    key("sts:RoleSessionName", "RoleSessionName"),
    key("sts:ExternalId", "ExternalId"),
    REQUEST_TAGS,
    TRANSITIVE,
    SOURCE,
)
ROLE = arns_at("RoleArn")
ASSUME_ROLE = (
    Permission("sts:AssumeRole", ROLE, keys=KEYS),
    Permission("sts:TagSession", ROLE, keys=(REQUEST_TAGS, TRANSITIVE), when="Tags"),
    Permission("sts:SetSourceIdentity", ROLE, keys=(SOURCE,), when="SourceIdentity"),
)
