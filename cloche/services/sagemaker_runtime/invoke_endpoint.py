"""InvokeEndpoint: find a replica that is ready, forward, translate what went wrong.

InvokeEndpointAsync and InvokeEndpointWithResponseStream are not here: the gateway refuses them by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import Permission
from cloche.replicas.pool import NoReply, Overloaded
from cloche.services.sagemaker import (
    RESOURCE_TAGS,
    Answered,
    Invocation,
    UnknownEndpoint,
    UnknownVariant,
)

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
# The original status and message of a ModelError, where no answer of the container's is there.
FAILURES: Mapping[str, tuple[int, str]] = {
    "timed out": (
        0,
        "Your invocation timed out while waiting for a response from container primary. Review "
        "the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try "
        "again.",
    ),
    "broke": (
        500,
        '{\n  "code": 500,\n  "type": "InternalServerException",\n  "message": "Worker died."\n}\n',
    ),
    "too large": (500, "The response of the container is larger than 6291456 bytes."),
}


@operation(
    permissions=[
        Permission("sagemaker:InvokeEndpoint", "endpoint/{EndpointName}", keys=(RESOURCE_TAGS,))
    ]
)
async def invoke_endpoint(
    call: Call[SageMaker],
    *,
    EndpointName: str,
    Body: bytes,
    ContentType: str | None = None,
    Accept: str | None = None,
    CustomAttributes: str | None = None,
    TargetVariant: str | None = None,
    InferenceId: str | None = None,
) -> dict[str, Any]:
    """Return the model's answer."""
    sent = (
        ("Content-Type", ContentType),
        ("Accept", Accept),
        ("X-Amzn-SageMaker-Custom-Attributes", CustomAttributes),
        ("X-Amzn-SageMaker-Inference-Id", InferenceId),
    )
    headers = tuple((name, value) for name, value in sent if value is not None)
    try:
        answered = await call.service.invoke(
            call.account, call.region, EndpointName, Invocation(Body, headers), TargetVariant
        )
    except UnknownEndpoint as error:
        text = f"Endpoint {EndpointName} of account {call.account} not found."
        raise AwsError("ValidationError", text) from error
    except UnknownVariant as error:
        text = f"Variant {TargetVariant} not found for Request."
        raise AwsError("ValidationError", text) from error
    except Overloaded as error:
        text = "The service is unavailable. Try your call again."
        raise AwsError("ServiceUnavailable", text, 503) from error
    except NoReply as error:
        stream = f"{error.pool}/{error.worker}" if error.worker else error.pool
        raise model_error(call, EndpointName, stream, *FAILURES[error.reason]) from error
    return result(call, EndpointName, answered)


def result(call: Call[SageMaker], name: str, answered: Answered) -> dict[str, Any]:
    """Return a replica's answer as InvokeEndpoint's, or a ModelError where it is none."""
    response = answered.response
    if not 200 <= response.status < 300:
        stream = f"{answered.variant}/{answered.replica}"
        message = response.body.decode(errors="replace")
        raise model_error(call, name, stream, response.status, message)
    found: dict[str, Any] = {
        "Body": response.body,
        "ContentType": response.headers.get("content-type", "application/octet-stream"),
        "InvokedProductionVariant": answered.variant,
    }
    attributes = response.headers.get(CUSTOM_ATTRIBUTES)
    return found | ({"CustomAttributes": attributes} if attributes is not None else {})


def model_error(
    call: Call[SageMaker], name: str, stream: str, status: int, message: str
) -> AwsError:
    """Return ModelError as InvokeEndpoint words it; the message is the container's own."""
    group = f"/aws/sagemaker/Endpoints/{name}"
    whose = "client" if 400 <= status < 500 else "server"
    text = (
        f'Received {whose} error ({status}) from primary with message "{message}". See '
        f"https://{call.region}.console.aws.amazon.com/cloudwatch/home?region={call.region}"
        f"#logEventViewer:group={group} in account {call.account} for more information."
    )
    fields = {
        "OriginalStatusCode": status,
        "OriginalMessage": message,
        "LogStreamArn": f"arn:aws:logs:{call.region}:{call.account}:log-group:{group}"
        f":log-stream:{stream}",
    }
    return AwsError("ModelError", text, 424, fields=fields)
