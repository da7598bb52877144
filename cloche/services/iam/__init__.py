"""IAM: who there is. `Identity` is what the gateway and other services ask."""

from cloche.core.errors import AwsError
from cloche.operation import Call, Service, collect, service_model
from cloche.services.iam.authorizer import Policies
from cloche.services.iam.evaluation import compiled
from cloche.services.iam.identity import Bootstrap, Identity, Role
from cloche.services.iam.operations import MODULES
from cloche.services.iam.owner import session_as
from cloche.services.iam.session_policies import check_session_policies, packed_size

__all__ = [
    "Bootstrap",
    "Identity",
    "Policies",
    "Role",
    "check_session_policies",
    "compiled",
    "packed_size",
    "service",
    "session_as",
]


def service(identity: Identity) -> Service:
    """Return IAM's operations."""
    model = service_model("iam")
    operations = collect(model, *MODULES)
    return Service(name="iam", operations=operations, api=identity, admit=admit)


def admit(call: Call[Identity]) -> None:
    """Refuse what GetSessionToken gave without MFA, in AWS's words.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
    """
    session = call.principal.session
    if session is not None and session.from_token and session.mfa_at_ms is None:
        message = "The security token included in the request is invalid"
        raise AwsError("InvalidClientTokenId", message, 403)
