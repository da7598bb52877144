"""IAM: who there is. `Identity` is what the gateway and other services ask."""

from cloche.operation import Service, collect, service_model
from cloche.services.iam.authorizer import Policies
from cloche.services.iam.evaluation import compiled
from cloche.services.iam.identity import Bootstrap, Identity, Role
from cloche.services.iam.operations import MODULES
from cloche.services.iam.owner import session_as

__all__ = [
    "Bootstrap",
    "Identity",
    "Policies",
    "Role",
    "compiled",
    "service",
    "session_as",
]


def service(identity: Identity) -> Service:
    """Return IAM's operations."""
    model = service_model("iam")
    return Service(name="iam", operations=collect(model, *MODULES), api=identity)
