"""Settings that are accepted and reported back, and change nothing on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def in_training(request: Mapping[str, Any]) -> list[str]:
    """Return the names of those that a training job has."""
    algorithm = request.get("AlgorithmSpecification") or {}
    found = {
        "VpcConfig": request.get("VpcConfig"),
        "EnableInterContainerTrafficEncryption": request.get(
            "EnableInterContainerTrafficEncryption"
        ),
        "OutputDataConfig.KmsKeyId": (request.get("OutputDataConfig") or {}).get("KmsKeyId"),
        "ResourceConfig.VolumeKmsKeyId": (request.get("ResourceConfig") or {}).get(
            "VolumeKmsKeyId"
        ),
        "TrainingImageConfig": algorithm.get("TrainingImageConfig"),
    }
    return [name for name, value in found.items() if value]


def in_serving(
    model: Mapping[str, Any], config: Mapping[str, Any], variant: Mapping[str, Any]
) -> list[str]:
    """Return the names of those that a model, an endpoint configuration and a variant have."""
    container = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
    found = {
        "VpcConfig": model.get("VpcConfig") or config.get("VpcConfig"),
        "KmsKeyId": config.get("KmsKeyId"),
        "ImageConfig": container.get("ImageConfig"),
        "InferenceAmiVersion": variant.get("InferenceAmiVersion"),
    }
    return [name for name, value in found.items() if value]


def line(names: Sequence[str]) -> list[str]:
    """Return what a log says of them, once: a line, or none."""
    return [f"Accepted, without effect on this machine: {', '.join(names)}"] if names else []
