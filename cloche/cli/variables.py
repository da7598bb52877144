"""The environment in which boto3, the SageMaker SDK and the AWS CLI work against the platform."""

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloche.cli.aws_client import AwsClient
from cloche.core import atomic, trust
from cloche.core import home as homes
from cloche.core.config import Config, Home

SDK_CONFIG_NAME = "sagemaker-sdk.yaml"
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
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
)
BEFORE = "CLOCHE_ENV_BEFORE"  # what the shell had: JSON, null for a variable that was not set
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # what a shell can set
AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "api.aws")
DRAWN_ACCOUNT = "0" * 12  # of a home folder that is not made yet
NO_KEY = "cloche-is-not-up"  # so that no key of the user's own is sent anywhere


@dataclass(frozen=True, slots=True)
class ShellVariables:
    """Variables to set and variables to remove."""

    exports: Mapping[str, str]
    unset: tuple[str, ...]

    def applied(self, to: Mapping[str, str]) -> dict[str, str]:
        """Return `to` with the variables set and removed."""
        kept = {name: value for name, value in to.items() if name not in self.unset}
        return kept | dict(self.exports)

    def shell(self, current: Mapping[str, str]) -> list[str]:
        """Return what a POSIX shell evaluates to have it, and to be able to give it back."""
        before = kept_before(current) or {}
        for name in (*self.unset, *self.exports):
            before.setdefault(name, current.get(name))
        return setting({**self.exports, BEFORE: json.dumps(before)}, self.unset)


def kept_before(current: Mapping[str, str]) -> dict[str, str | None] | None:
    """Return what a shell had before `cloche env`; None when that was not evaluated in it."""
    try:
        before = json.loads(current[BEFORE])
        return {str(name): None if value is None else str(value) for name, value in before.items()}
    except (KeyError, ValueError, AttributeError):
        return None


def given_back(current: Mapping[str, str]) -> list[str] | None:
    """Return what a shell evaluates to have what it had; None when it was not set up by us."""
    before = kept_before(current)
    if before is None:
        return None
    exports = {name: value for name, value in before.items() if value is not None}
    return setting(exports, (*(name for name in before if name not in exports), BEFORE))


def setting(exports: Mapping[str, str], unset: Sequence[str]) -> list[str]:
    """Return a POSIX shell's lines that set and remove variables, whatever is in them."""
    gone = " ".join(name for name in unset if NAME.fullmatch(name))
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in exports.items()
        if NAME.fullmatch(name)
    ]
    return [*([f"unset {gone}"] if gone else []), *lines]


def environment(
    client: AwsClient, name: str, current: Mapping[str, str] | None = None
) -> ShellVariables:
    """Return the environment of a new session of 12 hours, of a role or user by its name (`role`:
    the execution role, `admin`: the administrator); or of root. LookupError: there is none.

    `current` is the shell's own, whose exceptions from proxies are kept.
    """
    keys = client.credentials()
    write_sdk_config(client.home)
    return leading_to(
        client.home,
        address=client.server.address,
        proxy=client.server.proxy,
        region=keys.region,
        keys=root_keys(client) if name == "root" else session_keys(client, name),
        shell=os.environ if current is None else current,
    )


def closed(home: Home, shell: Mapping[str, str]) -> ShellVariables:
    """Return the environment of a server that is not up: it leads to the address where it was,
    or will be, with keys that are none. So nothing reaches AWS by mistake.
    """
    config = Config(home=home, account=DRAWN_ACCOUNT)
    # A home folder that can't be read leads to where a new one would.
    with contextlib.suppress(homes.HomeError, OSError):
        made = homes.read_settings(home)
        region = {"region": made.region} if made else {}
        config = replace(config, **{**region, **homes.read_choices(home)})
    return leading_to(
        home,
        address=config.address,
        proxy=config.proxy_address,
        region=config.region,
        keys={"AWS_ACCESS_KEY_ID": NO_KEY, "AWS_SECRET_ACCESS_KEY": NO_KEY},
        shell=shell,
    )


def leading_to(
    home: Home,
    *,
    address: str,
    proxy: str,
    region: str,
    keys: Mapping[str, str],
    shell: Mapping[str, str],
) -> ShellVariables:
    """Return the environment in which clients know only this address."""
    exports = {
        "AWS_ENDPOINT_URL": address,
        # A profile may say that such settings are to be ignored.
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        **keys,
        "HTTPS_PROXY": proxy,
        "NO_PROXY": no_proxy(address, shell),
        **dict.fromkeys(trust.VARIABLES, str(bundle_for(home, shell))),
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(home.path / SDK_CONFIG_NAME),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        # Python prefers the lower-case twin where there is one.
        if name.lower() in shell:
            exports[name.lower()] = exports[name]
    unset = [name for name in shell if name.startswith("AWS_ENDPOINT_URL_")]
    if "AWS_SESSION_TOKEN" not in exports:
        unset.append("AWS_SESSION_TOKEN")
    return ShellVariables(exports, (*IN_THE_WAY, *unset))


def bundle_for(home: Home, shell: Mapping[str, str]) -> Path:
    """Return the certificates that clients are to trust: ours, this machine's, the public ones,
    and those that the shell names, so that all other hosts are verified as before.
    """
    try:
        ours = home.bundle.read_bytes()
    except OSError:
        return home.bundle  # there is no server yet
    known = trust.blocks(ours)
    own = [
        file
        for name in trust.VARIABLES
        if name in shell and (file := read_file(shell[name])) is not None
    ]
    if all(block in known for file in own for block in trust.blocks(file)):
        return home.bundle
    content = trust.bundled([ours, *own])
    path = home.bundle.with_name(f"bundle-{hashlib.sha256(content).hexdigest()[:16]}.pem")
    if not path.exists():
        atomic.write(path, content, mode=0o644)
    return path


def read_file(name: str) -> bytes | None:
    """Return what a variable's file holds; None when it can't be read."""
    try:
        path = Path(name)
        return path.read_bytes() if path.is_file() else None
    except (OSError, ValueError):
        return None


def session_keys(client: AwsClient, name: str) -> dict[str, str]:
    """Return the keys of a new session: for a role's, `get_execution_role()` finds the role."""
    keys = client.session(name)
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["Token"],
    }


def root_keys(client: AwsClient) -> dict[str, str]:
    """Return the root user's keys."""
    keys = client.credentials()
    return {
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
    }


def no_proxy(address: str, shell: Mapping[str, str]) -> str:
    """Return the hosts that are reached straight: this machine, and the shell's exceptions."""
    host = address.removeprefix("http://").rsplit(":", 1)[0]
    said = shell.get("no_proxy") or shell.get("NO_PROXY", "")
    entries = [part.strip() for part in said.split(",")]
    kept = [entry for entry in entries if entry and not past_us(entry)]
    return ",".join(dict.fromkeys(["127.0.0.1", "localhost", host, *kept]))


def past_us(entry: str) -> bool:
    """Return whether an exception from the proxy meets AWS's own names: it would lead there."""
    plain = entry.lower().lstrip("*.")
    if plain.count(":") == 1:  # a port; more are an IPv6 address
        plain = plain.partition(":")[0]
    return any(plain.endswith(aws) or aws.endswith(plain) for aws in AWS_DOMAINS)


def write_sdk_config(home: Home) -> None:
    """Write the SDK's configuration file when it is not there."""
    path = home.path / SDK_CONFIG_NAME
    if not path.exists():
        path.write_text(SDK_CONFIG)
