"""The services that have a role of their own in an account, and what AWS calls and gives it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_aws-services-that-work-with-iam.html
https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "arn:aws:iam::aws:policy/aws-service-role/"
PATH = "/aws-service-role/"


@dataclass(frozen=True, slots=True)
class Linked:
    """A service's role: its name and policy; whether a suffix may make it one of several."""

    role: str
    policy: str
    suffix: bool = False

    @property
    def policy_arn(self) -> str:
        """The ARN of the policy that AWS attaches."""
        return f"{PREFIX}{self.policy}"


SERVICES: Mapping[str, Linked] = {
    "autoscaling.amazonaws.com": Linked(
        "AWSServiceRoleForAutoScaling", "AutoScalingServiceRolePolicy", suffix=True
    ),
    "lambda.application-autoscaling.amazonaws.com": Linked(
        "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency",
        "AWSApplicationAutoscalingLambdaConcurrencyPolicy",
    ),
    "ops.apigateway.amazonaws.com": Linked(
        "AWSServiceRoleForAPIGateway", "APIGatewayServiceRolePolicy"
    ),
    "sagemaker.application-autoscaling.amazonaws.com": Linked(
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        "AWSApplicationAutoscalingSageMakerEndpointPolicy",
    ),
}


def trust(service: str) -> str:
    """Return the trust policy of a service's role."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def is_linked(path: str) -> bool:
    """Tell whether a role's path says that it is a service's."""
    return path.startswith(PATH)
