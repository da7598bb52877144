"""The environment in which boto3, the SageMaker SDK and the AWS CLI work against the platform."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloche.cli.client import Client
from cloche.core.config import Home

Identity = Literal["role", "root"]
# The SDK sends telemetry to AWS, without a time-out: this opts out.
SDK_CONFIG = """\
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""
# What a shell may have set for AWS itself, and clients would prefer to ours.
IN_THE_WAY = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables to set and variables to remove."""

    exports: Mapping[str, str]
    unset: tuple[str, ...]

    def applied(self, to: Mapping[str, str]) -> dict[str, str]:
        """Return `to` with the variables set and removed."""
        kept = {name: value for name, value in to.items() if name not in self.unset}
        return kept | dict(self.exports)

    def shell(self) -> str:
        """Return what a POSIX shell evaluates to have it."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.exports.items()]
        return "\n".join([f"unset {' '.join(self.unset)}", *lines, ""])


def environment(
    client: Client, identity: Identity, current: Mapping[str, str] | None = None
) -> Environment:
    """Return the environment of the execution role (a new session of 12 hours) or of root.

    `current` is the shell's own, whose exceptions from proxies are kept.
    """
    shell = os.environ if current is None else current
    keys = client.credentials()
    exports = {
        "AWS_ENDPOINT_URL": client.server.address,
        "AWS_REGION": keys.region,
        "AWS_DEFAULT_REGION": keys.region,
        **(session_keys(client) if identity == "role" else root_keys(client)),
        "HTTPS_PROXY": client.server.proxy,
        "NO_PROXY": no_proxy(client, shell),
        "AWS_CA_BUNDLE": str(client.home.bundle),
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(sdk_config(client.home)),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        # Python prefers the lower-case twin where there is one.
        if name.lower() in shell:
            exports[name.lower()] = exports[name]
    unset = [name for name in shell if name.startswith("AWS_ENDPOINT_URL_")]
    if "AWS_SESSION_TOKEN" not in exports:
        unset.append("AWS_SESSION_TOKEN")
    return Environment(exports, (*IN_THE_WAY, *unset))


def session_keys(client: Client) -> dict[str, str]:
    """Return the keys of a new session of the execution role, as `get_execution_role()` needs."""
    keys = client.session()
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["Token"],
    }


def root_keys(client: Client) -> dict[str, str]:
    """Return the root user's keys."""
    keys = client.credentials()
    return {
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
    }


def no_proxy(client: Client, shell: Mapping[str, str]) -> str:
    """Return the hosts that are reached straight: this machine, and the shell's exceptions."""
    host = client.server.address.removeprefix("http://").rsplit(":", 1)[0]
    said = shell.get("no_proxy") or shell.get("NO_PROXY", "")
    # An exception for AWS's own names would lead past the platform.
    kept = [
        entry
        for entry in (part.strip() for part in said.split(","))
        if entry and entry != "*" and "amazonaws" not in entry
    ]
    return ",".join(dict.fromkeys(["127.0.0.1", "localhost", host, *kept]))


def sdk_config(home: Home) -> Path:
    """Return the SDK's configuration file, written when it is not there."""
    path = home.path / "sagemaker-sdk.yaml"
    if not path.exists():
        path.write_text(SDK_CONFIG)
    return path
