"""What endpoints' images stand for: a variant waits, Creating, until its environment is built."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from cloche.core.clock import Clock, to_ms
from cloche.core.config import Home
from cloche.core.errors import AwsError
from cloche.environments.background import Failed, wanted
from cloche.environments.ready import Ready
from cloche.services.sagemaker.environments import NotBuilt, framework_of, not_built
from cloche.services.sagemaker.loops.endpoint_plan import Models
from cloche.services.sagemaker.records_serving import Deployment, Variant

logger = logging.getLogger("cloche.sagemaker.endpoint")


class Images:
    """Has environments built, and remembers since when each deployment waits for one.

    After a restart that begins anew: a build that failed before is tried once more.
    """

    def __init__(self, home: Home, clock: Clock) -> None:
        self.home, self.clock = home, clock
        self.since: dict[str, int] = {}  # by deployment id, ms since 1970
        self.told: dict[str, str] = {}  # by deployment id

    async def look(self, deployment: Deployment, models: Models) -> Models:
        """Return the models that are ready, or failed, with regard to their environments too."""
        since = self.since.setdefault(deployment.id, to_ms(self.clock.now()))
        ready, failed = set(models.ready), dict(models.failed or {})
        for variant in deployment.variants:
            if variant.name not in ready or not launching(deployment, variant):
                continue
            try:
                if not await asyncio.to_thread(self.built, variant, since):
                    ready.remove(variant.name)
            except (NotBuilt, AwsError) as error:
                ready.remove(variant.name)
                failed[variant.name] = str(error)
                self.tell(deployment, str(error))
        return replace(models, ready=frozenset(ready), failed=failed)

    def built(self, variant: Variant, since_ms: int) -> bool:
        """Return whether a variant's environment is there; NotBuilt says why it can't be."""
        framework = framework_of(variant.image, self.home)
        found = wanted(framework, self.home, since_ms)
        if isinstance(found, Failed):
            raise not_built(framework, found, self.home)
        return isinstance(found, Ready)

    def tell(self, deployment: Deployment, failure: str) -> None:
        """Log it once: an endpoint that is in service has no place to say it."""
        if self.told.get(deployment.id) != failure:
            self.told[deployment.id] = failure
            logger.error("%s: %s", deployment.config, failure)

    def forget(self, deployment: str) -> None:
        """Drop what is known of a deployment."""
        self.since.pop(deployment, None)
        self.told.pop(deployment, None)


def launching(deployment: Deployment, variant: Variant) -> bool:
    """Return whether a replica of the variant is to be launched soon."""
    replicas = deployment.of(variant.name)
    return len(replicas) < variant.count or any(one.launched_ms is None for one in replicas)
