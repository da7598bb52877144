"""IAM's operations, by what they are about."""

from cloche.services.iam.operations import (
    access_keys,
    account,
    groups,
    instance_profiles,
    login_profiles,
    managed_policies,
    mfa,
    policy_versions,
    role_policies,
    roles,
    service_linked_roles,
    simulation,
    user_policies,
    users,
)

MODULES = (
    access_keys,
    account,
    groups,
    instance_profiles,
    login_profiles,
    managed_policies,
    mfa,
    policy_versions,
    role_policies,
    roles,
    service_linked_roles,
    simulation,
    user_policies,
    users,
)
