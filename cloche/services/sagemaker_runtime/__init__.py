"""Amazon SageMaker Runtime: InvokeEndpoint."""

from __future__ import annotations

from cloche.operation import Service, collect, service_model
from cloche.services.sagemaker import SageMaker
from cloche.services.sagemaker_runtime import invoke_endpoint


def service(sagemaker: SageMaker) -> Service:
    """Return the runtime's operations; endpoints are SageMaker's."""
    model = service_model("sagemaker-runtime")
    return Service(
        name="sagemaker-runtime",
        operations=collect(model, invoke_endpoint),
        api=sagemaker,
    )
