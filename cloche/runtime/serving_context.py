"""The context of a handler: what it may ask and set of the request that it answers.

Members, arguments and values are those of TorchServe (`ts.context`, `ts.metrics`), the model server
of AWS's PyTorch image, whose Context its inference toolkit hands on: a batch of one request.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

SERVER_VERSION = "0.12.0"  # TorchServe's, of the images for PyTorch 2.6
MODEL_NAME = "model"  # how AWS's toolkit registers the model
METRIC_UNITS = {"ms": "Milliseconds", "s": "Seconds", "percent": "Percent", "count": "Count"}
METRIC_UNITS |= {"B": "Bytes", "kB": "Kilobytes", "MB": "Megabytes", "GB": "Gigabytes", "": "unit"}


class RequestProcessor:
    """One request's headers, named as they were sent, and what its answer gets."""

    def __init__(self, request_header: Mapping[str, Any]) -> None:
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}
        self._request_header = dict(request_header)

    def get_request_property(self, key: str) -> Any:
        """Return a header of the request, or None."""
        return self._request_header.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """Return the request's headers."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the HTTP status of the answer."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """Return the HTTP status of the answer."""
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        """Return the phrase that was set with the status."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return the answer's headers."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """Return a header of the answer, or None."""
        return self._response_header.get(key)


class Metric:
    """A custom metric: each value is a line of the log, as TorchServe writes it."""

    def __init__(self, name: str, unit: str, kind: str, names: Sequence[str]) -> None:
        self.metric_name, self.unit = name, METRIC_UNITS.get(unit, unit)
        self.metric_type, self.dimension_names = kind, list(names)

    def add_or_update(
        self, value: Any, dimension_values: Sequence[Any] = (), request_id: str = ""
    ) -> None:
        """Write a value, the dimensions in the order of their names; what can't be is said."""
        names, given = self.dimension_names, list(dimension_values)
        shown = ",".join(f"{name}:{each}" for name, each in zip(names, given))  # noqa: B905
        wrong = ""
        if len(given) != len(names):
            wrong = f"Dimension values: {given} should correspond to Dimension names: {names}"
        elif self.metric_type == "COUNTER" and not isinstance(value, str) and value < 0:
            wrong = "Counter metric update value cannot be negative"
        if wrong:
            line = f"Failed to update metric with name:{self.metric_name} and dimensions: {shown} "
            print(f"[METRICS]{line}with value: {value}: {wrong}", flush=True)
            return
        line = f"{self.metric_name}.{self.unit}:{value}|#{shown}|#type:{self.metric_type}"
        when = f"{socket.gethostname()},{int(time.time())}"
        print(f"[METRICS]{line}|#hostname:{when}{request_id and ','}{request_id}", flush=True)

    def update(self, value: Any, request_id: str = "", dimensions: Sequence[Any] = ()) -> None:
        """Write a value with other dimensions."""
        self.dimension_names = [str(each.name) for each in dimensions]
        self.add_or_update(value, [each.value for each in dimensions], request_id)


def kind_of(metric_type: Any) -> str:
    """Return COUNTER, GAUGE or HISTOGRAM of its name or of a member of an enumeration."""
    return str(getattr(metric_type, "value", metric_type)).upper()


class Metrics:
    """The model server's custom metrics."""

    def __init__(self, request_id: str | None) -> None:
        self.request_id, self.model_name = request_id or "", MODEL_NAME
        self.cache: dict[tuple[str, str], Metric] = {}

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: Any = "counter",
    ) -> Metric:
        """Return a metric, made now if need be."""
        kind = kind_of(metric_type)
        made = Metric(metric_name, unit, kind, dimension_names)
        return self.cache.setdefault((kind, metric_name), made)

    def get_metric(self, metric_name: str, metric_type: Any = "counter") -> Metric:
        """Return a metric that was added; KeyError: there is none."""
        return self.cache[kind_of(metric_type), metric_name]

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "",
        idx: int | None = None,
        dimensions: Sequence[Any] = (),
        metric_type: Any = "counter",
    ) -> None:
        """Write a value of any metric."""
        given = [(str(each.name), str(each.value)) for each in dimensions or ()]
        pairs = [*given, ("ModelName", self.model_name), ("Level", "Model")]
        self._write(name, value, unit, pairs, kind_of(metric_type))

    def _write(
        self, name: str, value: Any, unit: str, pairs: Sequence[tuple[str, str]], kind: str
    ) -> None:
        metric = Metric(name, unit, kind, [each for each, _ in pairs])
        metric.add_or_update(value, [each for _, each in pairs], self.request_id)

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Any] = ()
    ) -> None:
        """Write a count."""
        self.add_metric(name, value, "count", idx, dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Any] = (),
    ) -> None:
        """Write a time, in `ms` or `s`."""
        if unit not in ("ms", "s"):
            raise ValueError("the unit for a timed metric should be one of ['ms', 's']")
        self.add_metric(name, value, unit, idx, dimensions, "gauge")

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Any] = (),
    ) -> None:
        """Write a size, in `MB`, `kB`, `GB` or `B`."""
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self.add_metric(name, value, unit, idx, dimensions, "gauge")

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Any] = ()
    ) -> None:
        """Write a percentage."""
        self.add_metric(name, value, "percent", idx, dimensions, "gauge")

    def add_error(self, name: str, value: Any, dimensions: Sequence[Any] = ()) -> None:
        """Write an error."""
        given = [(str(each.name), str(each.value)) for each in dimensions or ()]
        self._write(name, value, "", [*given, ("Level", "Error")], "COUNTER")


class Context:
    """What the model server knows of the model, and of the request once there is one."""

    def __init__(
        self,
        model_dir: str,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Headers: of a request, as they were sent; None while the model is loaded."""
        self.model_name = MODEL_NAME
        self.manifest: dict[str, Any] = {
            "runtime": "python",
            "model": {
                "modelName": MODEL_NAME,
                "handler": "handler_service.py",
                "modelVersion": "1",
            },
        }
        self.model_yaml_config: dict[str, Any] = {}
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "MMS",
            "server_version": SERVER_VERSION,
            "limit_max_image_pixels": True,
        }
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] | None = None
        if headers is not None:
            self.request_ids = {0: str(uuid.uuid4())}
            body = {"body": {"content-type": content_type}}  # the batch's part, as TorchServe has
            self.request_processor = [RequestProcessor({**body, **headers})]
        self.metrics = Metrics(self.get_request_id())

    def _processor(self, idx: int) -> RequestProcessor:
        """Return a request's processor; TypeError while there is none, as in TorchServe."""
        if self.request_processor is None:
            raise TypeError("'NoneType' object is not subscriptable")
        return self.request_processor[idx]

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the request's id; None without a request."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return one header of the request, named as it was sent; None: there is none."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return the request's headers."""
        return self._processor(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the Content-Type of the answer."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the Content-Type that was set."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Return the status of the answer and its phrase."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the HTTP status of the answer; nothing without a request."""
        if self.request_processor is not None:
            self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the HTTP status of every answer of the batch."""
        for processor in self.request_processor or ():
            processor.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the answer's headers."""
        return self._processor(idx).get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._processor(idx).add_response_property(key, value)
