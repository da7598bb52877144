"""Endpoints through boto3 against a whole platform."""

from __future__ import annotations

from typing import Any

from training_client import wait_for


def deploy(sagemaker: Any, role: str, name: str, image: str, uri: str, **variables: str) -> None:
    """Ask for an endpoint with one instance of a model; all of them have the same name."""
    container = {"Image": image, "ModelDataUrl": uri, "Environment": variables}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {
        "VariantName": "v",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def settled(sagemaker: Any, name: str) -> Any:
    """Return an endpoint's description once it is no longer Creating."""

    def look() -> Any:
        found = sagemaker.describe_endpoint(EndpointName=name)
        return found if found["EndpointStatus"] != "Creating" else None

    return wait_for(look)
