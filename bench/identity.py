"""What permission costs: CPU of a DescribeEndpoint of users with 1, 10 and 200 policies, beside
root, who is asked about no policy.

Each policy allows one of SageMaker's actions on an endpoint of its own, and reading of a bucket of
its own; one of them allows what is asked for.
"""

import json
from typing import Any

import boto3
from botocore.config import Config

from bench.control_plane import load_with, make_endpoint
from bench.harness import Runs, Server, cloche_server, compare

ROUNDS = 5
USERS = {"1 policy": 1, "10 policies": 10, "200 policies": 200}
ROOT = "root"
A_HOLDER = 10  # managed policies that a user or group may have attached
GROUP_INLINE = 10  # policies of a group that are inline besides
AIMS = {"10 policies": 0.05, "200 policies": 0.1}  # CPU ms more than root


def main() -> None:
    with cloche_server() as server:
        make_endpoint(server)
        clients = {ROOT: server.client("sagemaker")}
        for name, count in USERS.items():
            clients[name] = user(server, name.replace(" ", "-"), count)
        costs: Runs = {name: [] for name in clients}
        for number in range(ROUNDS):
            order = list(clients) if number % 2 else list(clients)[::-1]
            for name in order:
                costs[name].append(load_with(server, clients[name])[1])
    compare("DescribeEndpoint", "CPU ms a request", costs, against=ROOT)
    least = {name: min(values) for name, values in costs.items()}
    for name, aim in AIMS.items():
        more = least[name] - least[ROOT]
        print(f"  {name}: {more:+.3f} ms beside root, at the least   (aim: under {aim} ms)")


def user(server: Server, name: str, count: int) -> Any:
    """Return SageMaker's client of a new user with so many policies: its own, and its groups'."""
    iam = server.client("iam")
    iam.create_user(UserName=name)
    texts = [policy("bench"), *(policy(f"other-{number}") for number in range(count - 1))]
    for number, text in enumerate(texts[:A_HOLDER]):
        made = iam.create_policy(PolicyName=f"{name}-{number}", PolicyDocument=text)["Policy"]
        iam.attach_user_policy(UserName=name, PolicyArn=made["Arn"])
    rest = texts[A_HOLDER:]
    for begin in range(0, len(rest), A_HOLDER + GROUP_INLINE):
        group(iam, name, f"{name}-group-{begin}", rest[begin : begin + A_HOLDER + GROUP_INLINE])
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client(
        "sagemaker",
        endpoint_url=server.address,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(proxies={}),
    )


def group(iam: Any, user: str, name: str, texts: list[str]) -> None:
    """Make a group of a user that has these policies."""
    iam.create_group(GroupName=name)
    iam.add_user_to_group(GroupName=name, UserName=user)
    for number, text in enumerate(texts):
        if number < A_HOLDER:
            made = iam.create_policy(PolicyName=f"{name}-{number}", PolicyDocument=text)["Policy"]
            iam.attach_group_policy(GroupName=name, PolicyArn=made["Arn"])
        else:
            iam.put_group_policy(GroupName=name, PolicyName=f"inline-{number}", PolicyDocument=text)


def policy(endpoint: str) -> str:
    """Return a policy for one endpoint and one bucket."""
    describe = {
        "Effect": "Allow",
        "Action": ["sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"],
        "Resource": f"arn:aws:sagemaker:*:*:endpoint/{endpoint}",
    }
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{endpoint}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [describe, read]})


if __name__ == "__main__":
    main()
