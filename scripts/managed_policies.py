"""Write cloche/services/iam/managed: the AWS managed policies that may be attached.

Of each what AWS publishes: its default version, its dates. moto, of the dev extra, has them as IAM
answered; run this after an update of moto.
"""

import json
import sys
from pathlib import Path

from moto.iam.aws_managed_policies import aws_managed_policies_data

FOLDER = Path(__file__).resolve().parent.parent / "cloche/services/iam/managed"
CATALOGUE = "catalogue.json"
# With their paths. Those that people attach, and those of the services that Cloche has.
NAMES = (
    "AdministratorAccess",
    "AmazonAPIGatewayAdministrator",
    "AmazonAPIGatewayInvokeFullAccess",
    "AmazonEC2ContainerRegistryReadOnly",
    "AmazonEC2FullAccess",
    "AmazonEC2ReadOnlyAccess",
    "AmazonS3FullAccess",
    "AmazonS3ReadOnlyAccess",
    "AmazonSageMakerFullAccess",
    "AmazonSageMakerReadOnly",
    "AWSCloudTrail_ReadOnlyAccess",
    "AWSLambda_FullAccess",
    "AWSLambda_ReadOnlyAccess",
    "CloudWatchFullAccess",
    "CloudWatchFullAccessV2",
    "CloudWatchLogsFullAccess",
    "CloudWatchLogsReadOnlyAccess",
    "CloudWatchReadOnlyAccess",
    "IAMFullAccess",
    "IAMReadOnlyAccess",
    "IAMUserChangePassword",
    "IAMUserSSHKeys",
    "PowerUserAccess",
    "ReadOnlyAccess",
    "SecurityAudit",
    "aws-service-role/APIGatewayServiceRolePolicy",
    "aws-service-role/AWSApplicationAutoscalingLambdaConcurrencyPolicy",
    "aws-service-role/AWSApplicationAutoscalingSageMakerEndpointPolicy",
    "aws-service-role/AutoScalingServiceRolePolicy",
    "job-function/ViewOnlyAccess",
    "service-role/AWSLambdaBasicExecutionRole",
    "service-role/AWSLambdaRole",
    "service-role/AWSLambdaVPCAccessExecutionRole",
)


def main() -> None:
    """Write the catalogue and a file for each document; exit code 1 when one is not known."""
    known = json.loads(aws_managed_policies_data)
    catalogue = {}
    for name in NAMES:
        path, _, short = f"/{name}".rpartition("/")
        found = known.get(short)
        if found is None or found["Path"] != f"{path}/":
            sys.exit(f"moto has no policy {name}")
        facts = ("CreateDate", "UpdateDate", "DefaultVersionId")
        catalogue[name] = {fact: found[fact] for fact in facts}
        write(f"{short}.json", found["Document"])
    write(CATALOGUE, catalogue)


def write(name: str, content: object) -> None:
    """Write one file of the folder."""
    (FOLDER / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
