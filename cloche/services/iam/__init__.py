"""IAM: who there is. `Identity` is what the gateway and other services ask."""

from cloche.operation import Service, collect, service_model
from cloche.services.iam import operations
from cloche.services.iam.authorizer import IssuedKeys
from cloche.services.iam.evaluate import compiled
from cloche.services.iam.identity import Bootstrap, Identity, Role

__all__ = ["Bootstrap", "Identity", "IssuedKeys", "Role", "compiled", "service"]


def service(identity: Identity) -> Service:
    """Return IAM's operations."""
    model = service_model("iam")
    return Service(name="iam", operations=collect(model, operations), api=identity)
