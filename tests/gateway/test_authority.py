"""The local authority: kept, renewed, trusted beside the public ones."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509

from cloche.core.clock import ManualClock
from cloche.core.trust import PEM
from cloche.gateway.authority import KEY_NAME, Authority
from cloche.records.secrets import Secrets


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Secrets]:
    opened = Secrets.open(tmp_path / "secrets.db")
    yield opened
    opened.close()


def test_it_is_made_once_and_kept(tmp_path: Path, secrets: Secrets) -> None:
    clock = ManualClock()
    first = Authority.open(tmp_path, clock, secrets)
    again = Authority.open(tmp_path, clock, secrets)
    assert first.certificate == again.certificate
    assert secrets.path.stat().st_mode & 0o777 == 0o600
    files = {path for path in tmp_path.rglob("*") if b"PRIVATE KEY" in path.read_bytes()}
    assert files and all(path.name.startswith("secrets.db") for path in files)


def test_a_key_in_a_file_is_taken_over(tmp_path: Path, secrets: Secrets) -> None:
    clock = ManualClock()
    first = Authority.open(tmp_path, clock, secrets)
    kept = secrets.get(KEY_NAME)
    assert kept is not None
    secrets.put_now({KEY_NAME: "another"})
    (tmp_path / "authority.key").write_text(kept)
    assert Authority.open(tmp_path, clock, secrets).certificate == first.certificate
    assert secrets.get(KEY_NAME) == kept and not (tmp_path / "authority.key").exists()


def test_a_damaged_or_expiring_one_is_made_anew(tmp_path: Path, secrets: Secrets) -> None:
    clock = ManualClock()
    first = Authority.open(tmp_path, clock, secrets)
    secrets.put_now({KEY_NAME: "half a ke"})
    second = Authority.open(tmp_path, clock, secrets)
    assert second.certificate != first.certificate
    clock.advance(timedelta(days=3640).total_seconds())
    third = Authority.open(tmp_path, clock, secrets)
    assert third.certificate != second.certificate
    assert third.certificate.public_bytes is not None
    assert PEM.findall(third.bundle.read_bytes())


def test_the_bundle_holds_public_authorities_and_ours(tmp_path: Path, secrets: Secrets) -> None:
    authority = Authority.open(tmp_path, ManualClock(), secrets)
    blocks = PEM.findall(authority.bundle.read_bytes())
    assert set(PEM.findall(Path(certifi.where()).read_bytes())) <= set(blocks)
    ours = x509.load_pem_x509_certificate(blocks[0])
    assert ours == authority.certificate
    assert len(blocks) == len(set(blocks))


def test_contexts_are_kept_per_name_and_renewed(tmp_path: Path, secrets: Secrets) -> None:
    clock = ManualClock()
    authority = Authority.open(tmp_path, clock, secrets)
    context = authority.context("STS.amazonaws.com")
    assert authority.context("sts.amazonaws.com") is context
    assert isinstance(context, ssl.SSLContext)
    clock.advance(timedelta(days=380).total_seconds())
    assert authority.context("sts.amazonaws.com") is not context


def test_a_certificate_is_for_one_name(tmp_path: Path, secrets: Secrets) -> None:
    authority = Authority.open(tmp_path, ManualClock(), secrets)
    name = "a-very-long-bucket-name-" + "x" * 39 + ".s3.us-east-1.amazonaws.com"
    certificate = authority.sign(name)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [name]
    certificate.verify_directly_issued_by(authority.certificate)
