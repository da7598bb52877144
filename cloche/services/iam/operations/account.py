"""Root, the account's aliases."""

from typing import Any

from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.services.iam.entities import no_such
from cloche.services.iam.identity import Identity
from cloche.services.iam.paging import PAGE
from cloche.services.iam.permissions import user_arns


@operation(permissions=[Permission("iam:GetUser", user_arns)])
def get_user(call: Call[Identity], *, UserName: str | None = None) -> dict[str, Any]:
    """Return the caller where that is root, the only user there is."""
    if UserName is not None:
        raise no_such(f"The user with name {UserName} cannot be found.")
    root = call.service.root(call.account)
    if call.principal.kind != "root" or root is None:
        message = "Must specify userName when calling with non-User credentials"
        raise AwsError("ValidationError", message)
    return {"User": {"UserId": call.account, "Arn": root.arn, "CreateDate": root.created}}


@operation(permissions=[Permission("iam:ListAccountAliases")])
def list_account_aliases(
    call: Call[Identity], *, Marker: str | None = None, MaxItems: int = PAGE
) -> dict[str, Any]:
    """Return no alias: there is no way to make one."""
    return {"AccountAliases": [], "IsTruncated": False}
