"""Amazon SageMaker Runtime: InvokeEndpoint."""

from __future__ import annotations

import botocore.session

from cloche.operation import Service, collect
from cloche.services.sagemaker import SageMaker
from cloche.services.sagemaker_runtime import invoke_endpoint


def service(sagemaker: SageMaker) -> Service:
    """Return the runtime's operations; endpoints are SageMaker's."""
    model = botocore.session.get_session().get_service_model("sagemaker-runtime")
    return Service(
        name="sagemaker-runtime",
        operations=collect(model, invoke_endpoint),
        api=sagemaker,
    )
