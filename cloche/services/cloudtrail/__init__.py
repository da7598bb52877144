"""CloudTrail: LookupEvents reads the management events of the last 90 days."""

from cloche.events import EventLog
from cloche.operation import Service, collect, service_model
from cloche.services.cloudtrail import operations

__all__ = ["service"]


def service(log: EventLog) -> Service:
    """Return the operations of CloudTrail."""
    model = service_model("cloudtrail")
    return Service(name="cloudtrail", operations=collect(model, operations), api=log)
