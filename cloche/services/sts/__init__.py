"""STS: who calls, and keys for a limited time."""

from cloche.operation import Service, collect, service_model
from cloche.services.iam import Identity
from cloche.services.sts import operations

__all__ = ["service"]


def service(identity: Identity) -> Service:
    """Return STS's operations, on the keys that IAM holds."""
    model = service_model("sts")
    made = collect(model, operations)
    return Service(name="sts", operations=made, api=identity, admit=operations.admit)
