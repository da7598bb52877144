"""What endpoints' variants run: each waits, Creating, until its environment is built, and until
what its model's `code/requirements.txt` adds to that is installed, once for all of its replicas.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.core.clock import to_ms
from cloche.core.errors import AwsError
from cloche.environments.background import Failed, wanted
from cloche.environments.ready import Ready
from cloche.environments.table import Framework, asked_for, fitting, over
from cloche.records.store import Resource
from cloche.services.sagemaker.serving.decide import Models
from cloche.services.sagemaker.serving.record import Deployment, Replica, Variant
from cloche.services.sagemaker.serving.replica_gang import Folders
from cloche.services.sagemaker.software import requirements
from cloche.services.sagemaker.software.images import (
    Environment,
    NotBuilt,
    environment_of,
    framework_of,
    not_built,
)
from cloche.services.sagemaker.software.layers import Asker, Asking, Installing, Layer
from cloche.services.sagemaker.software.prepared import Prepared

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

TRAINING_ONLY = {"smdebug"}  # AWS's inference images have none
logger = logging.getLogger("cloche.sagemaker.endpoint")


class Software:
    """Has environments built and requirements installed, and remembers how far each one is.

    After a restart that begins again: what failed before is tried once more.
    """

    def __init__(self, sagemaker: SageMaker, wake: Callable[[str], None]) -> None:
        self.sagemaker, self.wake = sagemaker, wake
        self.since: dict[str, int] = {}  # by deployment id, ms since 1970
        self.told: dict[str, str] = {}  # by deployment id
        self.askers: dict[tuple[str, str], Asker] = {}  # by deployment id and variant
        self.fitting: dict[tuple[str, str], Framework] = {}  # by the same

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
                framework = await executors.BUILDS.run(
                    self.framework, deployment.id, variant, model
                )
                built = await executors.BUILDS.run(self.built, framework, since)
                if not built or not await self.installed(resource, deployment, variant, model):
                    ready.remove(variant.name)
            except (NotBuilt, AwsError) as error:
                ready.remove(variant.name)
                failed[variant.name] = str(error)
                self.tell(deployment, str(error))
        return replace(models, ready=frozenset(ready), failed=failed)

    def framework(self, deployment: str, variant: Variant, model: Path) -> Framework:
        """Return what stands for a variant's image with regard to what its scripts import."""
        base, key = (
            framework_of(variant.image, self.sagemaker.config.home),
            (deployment, variant.name),
        )
        if key not in self.fitting:
            imported = requirements.imported_in(model / "code", asked_for(base) - TRAINING_ONLY)
            self.fitting[key] = fitting(base, imported)
        found = self.fitting[key]
        return found if found in over(base) else base

    def environment(self, deployment: str, variant: Variant, model: Path) -> Environment:
        """Return what a variant's replicas run in; an AwsError says why nothing can now."""
        framework = self.framework(deployment, variant, model)
        return environment_of(framework, variant.image, self.sagemaker.config.home)

    def prepared(
        self, deployment: str, variant: Variant, model: Path, layer: Layer | None
    ) -> Prepared:
        """Return the software of a launch; an AwsError says why there is none now."""
        return Prepared(self.environment(deployment, variant, model), layer)

    def built(self, framework: Framework, since_ms: int) -> bool:
        """Return whether an environment is there; NotBuilt says why it can't be."""
        home = self.sagemaker.config.home
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
            found = await executors.FILES.run(self.requirements, deployment.id, variant, model)
            asker = Asker(found)
            self.askers[deployment.id, variant.name] = asker
        r = resource
        by = Asking(r.account, r.region, variant.role_arn, r.arn, self.wake)
        layer = await asker.look(self.sagemaker.layers, by)
        return not isinstance(layer, Installing)

    def layer(self, replica: Replica) -> Layer | None:
        """Return what holds a replica's requirements, by the last look; None: it runs pip."""
        asker = self.askers.get((replica.deployment, replica.variant))
        return None if asker is None else asker.layer

    def requirements(
        self, deployment: str, variant: Variant, model: Path
    ) -> requirements.Wanted | None:
        """Return what a model's requirements.txt asks for that a layer may hold.

        Without egress there is none: pip would reach nothing, on AWS neither.
        """
        if variant.network_isolation or not self.sagemaker.engine.layered:
            return None
        environment = self.environment(deployment, variant, model)
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
        for key in [key for key in (*self.askers, *self.fitting) if key[0] == deployment]:
            self.askers.pop(key, None)
            self.fitting.pop(key, None)


def launching(deployment: Deployment, variant: Variant) -> bool:
    """Return whether a replica of the variant is to be launched soon."""
    replicas = deployment.of(variant.name)
    return len(replicas) < variant.count or any(one.launched_ms is None for one in replicas)
