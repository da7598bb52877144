"""CloudWatch Logs: `Logs` gives the engine its log files and reads them."""

from cloche.operation import Service, collect, service_model
from cloche.services.logs import events, groups
from cloche.services.logs.files import LogRecord
from cloche.services.logs.logs import Logs

__all__ = ["LogRecord", "Logs", "service"]


def service(logs: Logs) -> Service:
    """Return the operations of CloudWatch Logs."""
    model = service_model("logs")
    return Service(name="logs", operations=collect(model, events, groups), api=logs)
