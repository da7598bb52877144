"""What endpoints' variants run: each waits, Creating, until its environment is built, and until
what its model's `code/requirements.txt` adds to that is installed, once for all of its replicas.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.environments.background import Failed, wanted
from cloche.environments.ready import Ready
from cloche.records.store import Resource
from cloche.services.sagemaker import requirements
from cloche.services.sagemaker.environments import (
    NotBuilt,
    environment_for,
    framework_of,
    not_built,
)
from cloche.services.sagemaker.layers import Asker, Installing, Layer
from cloche.services.sagemaker.loops.endpoint_gang import Folders
from cloche.services.sagemaker.loops.endpoint_plan import Models
from cloche.services.sagemaker.records_serving import Deployment, Replica, Variant

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

logger = logging.getLogger("cloche.sagemaker.endpoint")


class Software:
    """Has environments built and requirements installed, and remembers how far each one is.

    After a restart that begins anew: what failed before is tried once more.
    """

    def __init__(self, sagemaker: SageMaker) -> None:
        self.sagemaker = sagemaker
        self.since: dict[str, int] = {}  # by deployment id, ms since 1970
        self.told: dict[str, str] = {}  # by deployment id
        self.askers: dict[tuple[str, str], Asker] = {}  # by deployment id and variant

    async def look(
        self, resource: Resource, deployment: Deployment, models: Models, folders: Folders
    ) -> Models:
        """Return the models that are ready, or failed, with regard to their software too."""
        since = self.since.setdefault(deployment.id, to_ms(self.sagemaker.store.clock.now()))
        ready, failed = set(models.ready), dict(models.failed or {})
        for variant in deployment.variants:
            if variant.name not in ready or not launching(deployment, variant):
                continue
            model = folders.model(deployment.id, variant.name)
            try:
                built = await asyncio.to_thread(self.built, variant, since)
                if not built or not await self.installed(resource, deployment, variant, model):
                    ready.remove(variant.name)
            except (NotBuilt, AwsError) as error:
                ready.remove(variant.name)
                failed[variant.name] = str(error)
                self.tell(deployment, str(error))
        return replace(models, ready=frozenset(ready), failed=failed)

    def built(self, variant: Variant, since_ms: int) -> bool:
        """Return whether a variant's environment is there; NotBuilt says why it can't be."""
        home = self.sagemaker.config.home
        framework = framework_of(variant.image, home)
        found = wanted(framework, home, since_ms)
        if isinstance(found, Failed):
            raise not_built(framework, found, home)
        return isinstance(found, Ready)

    async def installed(
        self, resource: Resource, deployment: Deployment, variant: Variant, model: Path
    ) -> bool:
        """Return whether a variant's requirements are there, or its replicas have to run pip."""
        asker = self.askers.get((deployment.id, variant.name))
        if asker is None:
            asker = Asker(await asyncio.to_thread(self.requirements, variant, model))
            self.askers[deployment.id, variant.name] = asker
        found = await asker.look(
            self.sagemaker.layers, resource.account, resource.region, variant.role_arn
        )
        return not isinstance(found, Installing)

    def layer(self, replica: Replica) -> Layer | None:
        """Return what holds a replica's requirements, by the last look; None: it runs pip."""
        asker = self.askers.get((replica.deployment, replica.variant))
        return None if asker is None else asker.layer

    def requirements(self, variant: Variant, model: Path) -> requirements.Wanted | None:
        """Return what a model's requirements.txt asks for that a layer may hold.

        Without egress there is none: pip would reach nothing, on AWS neither.
        """
        if variant.network_isolation or not self.sagemaker.engine.layered:
            return None
        environment = environment_for(variant.image, self.sagemaker.config.home)
        text = requirements.read(model / "code")
        return requirements.wanted(text, environment, variant.environment, variant.role_arn)

    def tell(self, deployment: Deployment, failure: str) -> None:
        """Log it once: an endpoint that is in service has no place to say it."""
        if self.told.get(deployment.id) != failure:
            self.told[deployment.id] = failure
            logger.error("%s: %s", deployment.config, failure)

    def forget(self, deployment: str) -> None:
        """Drop what is known of a deployment."""
        self.since.pop(deployment, None)
        self.told.pop(deployment, None)
        for key in [key for key in self.askers if key[0] == deployment]:
            del self.askers[key]


def launching(deployment: Deployment, variant: Variant) -> bool:
    """Return whether a replica of the variant is to be launched soon."""
    replicas = deployment.of(variant.name)
    return len(replicas) < variant.count or any(one.launched_ms is None for one in replicas)
