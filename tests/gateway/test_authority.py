"""The local authority: kept, renewed, trusted beside the public ones."""

import ssl
from datetime import timedelta
from pathlib import Path

import certifi
from cryptography import x509

from cloche.core.clock import ManualClock
from cloche.gateway.authority import PEM, Authority


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    clock = ManualClock()
    first = Authority.open(tmp_path, clock)
    again = Authority.open(tmp_path, clock)
    assert first.certificate == again.certificate
    assert (tmp_path / "authority.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_or_expiring_one_is_made_anew(tmp_path: Path) -> None:
    clock = ManualClock()
    first = Authority.open(tmp_path, clock)
    (tmp_path / "authority.key").write_text("half a ke")
    second = Authority.open(tmp_path, clock)
    assert second.certificate != first.certificate
    clock.advance(timedelta(days=3640).total_seconds())
    third = Authority.open(tmp_path, clock)
    assert third.certificate != second.certificate
    assert third.certificate.public_bytes is not None
    assert PEM.findall(third.bundle.read_bytes())


def test_the_bundle_holds_public_authorities_and_ours(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, ManualClock())
    blocks = PEM.findall(authority.bundle.read_bytes())
    assert set(PEM.findall(Path(certifi.where()).read_bytes())) <= set(blocks)
    ours = x509.load_pem_x509_certificate(blocks[0])
    assert ours == authority.certificate
    assert len(blocks) == len(set(blocks))


def test_contexts_are_kept_per_name_and_renewed(tmp_path: Path) -> None:
    clock = ManualClock()
    authority = Authority.open(tmp_path, clock)
    context = authority.context("STS.amazonaws.com")
    assert authority.context("sts.amazonaws.com") is context
    assert isinstance(context, ssl.SSLContext)
    clock.advance(timedelta(days=380).total_seconds())
    assert authority.context("sts.amazonaws.com") is not context


def test_a_certificate_is_for_one_name(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, ManualClock())
    name = "a-very-long-bucket-name-" + "x" * 39 + ".s3.us-east-1.amazonaws.com"
    certificate = authority.sign(name)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [name]
    certificate.verify_directly_issued_by(authority.certificate)
