"""IAM's operations, by what they are about."""

from cloche.services.iam.operations import (
    account,
    managed_policies,
    policy_versions,
    role_policies,
    roles,
    simulation,
)

MODULES = (account, managed_policies, policy_versions, role_policies, roles, simulation)
