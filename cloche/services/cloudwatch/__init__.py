"""CloudWatch metrics: `CloudWatch.put` is what other services write them with."""

from cloche.operation import Service, collect, service_model
from cloche.services.cloudwatch import read, write
from cloche.services.cloudwatch.metrics import CloudWatch, Datum

__all__ = ["CloudWatch", "Datum", "service"]


def service(cloudwatch: CloudWatch) -> Service:
    """Return the operations of CloudWatch."""
    model = service_model("cloudwatch")
    return Service(name="cloudwatch", operations=collect(model, write, read), api=cloudwatch)
