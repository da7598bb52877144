"""From an endpoint's name to an answer of one of its replicas."""

from __future__ import annotations

from cloche.records.store import Store
from cloche.services.sagemaker.serving.record import ENDPOINT, SERVING, endpoint, endpoint_arn
from cloche.services.sagemaker.serving.router import (
    Answered,
    Invocation,
    Router,
    UnknownEndpoint,
    VariantRoute,
)


async def invoke(
    store: Store,
    router: Router,
    account: str,
    region: str,
    name: str,
    invocation: Invocation,
    variant: str | None = None,
) -> Answered:
    """Return a replica's answer; raises what `Router.invoke` raises.

    Just after a restart of the server the router knows no endpoint yet: then the record tells
    which variants there are, and the request waits for the loop to find the replicas.
    """
    arn = endpoint_arn(account, region, name)
    if not router.knows(arn):
        resource = store.get(ENDPOINT, account, region, name)
        if resource is None or resource.status not in SERVING:
            raise UnknownEndpoint(arn)
        serving = endpoint(resource).state.serving
        if serving is None:
            raise UnknownEndpoint(arn)
        router.publish(arn, [VariantRoute(v.name, v.weight) for v in serving.variants])
    return await router.invoke(arn, invocation, variant)
