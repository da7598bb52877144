"""The software of one launch, looked up once: what runs, what is mounted and what the log says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloche.core.config import Config
from cloche.engine import Engine, Mount
from cloche.services.sagemaker.software.images import Environment, say_what_runs
from cloche.services.sagemaker.software.instance import base_mounts
from cloche.services.sagemaker.software.layers import Layer, layered


@dataclass(frozen=True, slots=True)
class Prepared:
    """An environment, and the layer over it that holds a script's requirements, if one does."""

    environment: Environment
    layer: Layer | None

    def mounts(self, config: Config, engine: Engine) -> tuple[Mount, ...]:
        """Return the interpreter, the runners, the certificates and the layer."""
        return layered(base_mounts(self.environment, config, engine), self.layer, engine)

    def say(self, log: Path, now_ms: int, image: str, more: Sequence[str], where: str) -> None:
        """Say in a log which software really runs, once (`say_what_runs`)."""
        lines = [*more] if self.layer is None else [self.layer.description, *more]
        say_what_runs(log, now_ms, self.environment, image, lines, where)
