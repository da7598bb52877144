"""The local certificate authority: certificates for AWS's host names, made when a client asks.

The SDKs call some hosts by name over TLS (`sts.us-east-1.amazonaws.com`), whatever endpoint they
know. The proxy answers for these names with certificates of an authority that only clients
of this platform trust: they find its bundle by AWS_CA_BUNDLE and its likes (`core.trust`).
"""

import os
import ssl
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloche.core import atomic
from cloche.core.clock import Clock
from cloche.core.trust import bundled, trusted
from cloche.records.secrets import Secrets

AUTHORITY_LIFE, LEAF_LIFE = timedelta(days=3650), timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
SKEW = timedelta(days=1)  # a client's clock may be behind ours
CACHED_NAMES = 512
KEY_NAME = "authority-key"
PUBLIC = 0o644


@dataclass
class Authority:
    """Signs certificates for host names. `bundle` is the file that clients are to trust."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    bundle: Path
    clock: Clock
    leaf_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    contexts: OrderedDict[str, tuple[datetime, ssl.SSLContext]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, folder: Path, clock: Clock, secrets: Secrets) -> "Authority":
        """Return the authority; made when there is none, or it soon expires.

        Its certificate and the clients' bundle are files of `folder`, its key is in `secrets`.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate_file = folder / "authority.pem"
        take_over(folder / "authority.key", secrets)
        kept = load(secrets.get(KEY_NAME), certificate_file)
        if kept is None or kept[1].not_valid_after_utc < clock.now() + RENEW_BEFORE:
            key = ec.generate_private_key(ec.SECP256R1())
            kept = key, self_signed(key, clock.now())
            secrets.put_now({KEY_NAME: private_pem(key).decode()})
            atomic.write(certificate_file, public_pem(kept[1]), mode=PUBLIC)
        bundle = folder / "bundle.pem"
        content = bundled([public_pem(kept[1]), *trusted()])
        if not bundle.exists() or bundle.read_bytes() != content:
            atomic.write(bundle, content, mode=PUBLIC)
        return cls(certificate=kept[1], key=kept[0], bundle=bundle, clock=clock)

    def context(self, server_name: str) -> ssl.SSLContext:
        """Return TLS settings that speak for the name in the client's SNI, else `server_name`."""
        name = server_name.lower()
        with self.lock:
            known = self.contexts.get(name)
            if known is not None and known[0] > self.clock.now() + RENEW_BEFORE:
                self.contexts.move_to_end(name)
                return known[1]
            certificate = self.sign(name)
            context = server_context(certificate, self.certificate, self.leaf_key)
            context.sni_callback = self._choose
            self.contexts[name] = certificate.not_valid_after_utc, context
            while len(self.contexts) > CACHED_NAMES:
                self.contexts.popitem(last=False)
            return context

    def _choose(self, tls: ssl.SSLObject, asked: str | None, _of: ssl.SSLContext) -> None:
        if asked is not None:
            tls.context = self.context(asked)

    def sign(self, name: str) -> x509.Certificate:
        """Return a certificate for one host name."""
        now = self.clock.now()
        public = self.leaf_key.public_key()
        return (
            x509.CertificateBuilder()
            # A common name takes 64 characters at the most; clients read the alternative name.
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )


def self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Return the authority's own certificate; as strict clients (Python 3.13's) want it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cloche local authority")])
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def server_context(
    certificate: x509.Certificate, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    """Return a server's TLS settings with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    # The ssl module reads certificates from files alone.
    descriptor, name = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(private_pem(key) + public_pem(certificate) + public_pem(issuer))
        context.load_cert_chain(name)
    finally:
        os.unlink(name)
    return context


def take_over(key_file: Path, secrets: Secrets) -> None:
    """Move the key out of the file in which older versions kept it."""
    try:
        size = key_file.stat().st_size
        secrets.put_now({KEY_NAME: key_file.read_text(errors="replace")})
    except FileNotFoundError:
        return
    with key_file.open("r+b") as file:
        file.write(b"\0" * size)
        file.flush()
        os.fsync(file.fileno())
    key_file.unlink()


def load(
    key_pem: str | None, certificate_file: Path
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    """Return the authority that was kept; None when a part of it is missing or damaged."""
    if key_pem is None:
        return None
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    # A crash between the two writes leaves a key that did not sign the certificate.
    return (key, certificate) if key.public_key() == certificate.public_key() else None


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key in PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(certificate: x509.Certificate) -> bytes:
    """Return the certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)
