"""Whose certificates clients trust: the files, and the variables by which clients find them."""

import contextlib
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import certifi

# Where clients look for a file of authorities: the AWS SDKs; requests; OpenSSL (Python's ssl,
# urllib, httpx, aiohttp, wget, Go); curl; Node.js; pip; git.
VARIABLES = (
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
)
# Where distributions keep what the machine trusts, a company's own authorities among them.
SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def trusted(variables: Mapping[str, str] | None = None) -> Iterable[bytes]:
    """Yield what this machine's clients trust without us: files of certificates.

    `variables` are an environment in which some may be named (this process's own).
    """
    named = os.environ if variables is None else variables
    system = ssl.get_default_verify_paths().cafile
    named_files = [named.get(variable) for variable in VARIABLES]
    for path in dict.fromkeys([certifi.where(), system, *SYSTEM_FILES, *named_files]):
        if path:
            with contextlib.suppress(OSError):
                yield Path(path).read_bytes()


def blocks(content: bytes) -> dict[bytes, None]:
    """Return the certificates of a file, in order, each once."""
    return dict.fromkeys(PEM.findall(content))


def bundled(files: Iterable[bytes]) -> bytes:
    """Return all certificates of the files, each once."""
    found = {block: None for file in files for block in blocks(file)}
    return b"\n".join(found) + b"\n"


def client_context() -> ssl.SSLContext:
    """Return TLS settings of a client that trusts what this machine trusts, and checks names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for block in blocks(bundled(trusted())):
        with contextlib.suppress(ssl.SSLError):  # one that OpenSSL can't read vouches for nobody
            context.load_verify_locations(cadata=block.decode("ascii"))
    return context
