"""Which certificates clients trust."""

import ssl
from pathlib import Path

import pytest

from cloche.cli.variables import bundle_for
from cloche.core import trust
from cloche.core.config import Home

OURS, COMPANY, BOTH = (
    f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("A", "B", "AB")
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.bundle.parent.mkdir()
    home.bundle.write_text(OURS)
    return home


def test_what_a_shell_names_is_trusted_still(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "company.pem"
    file.write_text(f"words\n{COMPANY}{OURS}")
    for name in trust.VARIABLES:
        path = bundle_for(home, {name: str(file)})
        assert path != home.bundle and path.parent == home.bundle.parent
        content = path.read_bytes()
        assert list(trust.blocks(content)) == [text.strip().encode() for text in (OURS, COMPANY)]
    assert len(list(home.bundle.parent.iterdir())) == 2  # the same content is one file


@pytest.mark.parametrize("value", ["", "/nowhere", "/dev/zero", "\0", "/etc"])
def test_what_a_shell_names_in_vain_changes_nothing(home: Home, value: str) -> None:
    assert bundle_for(home, {"SSL_CERT_FILE": value}) == home.bundle
    assert bundle_for(home, {"SSL_CERT_FILE": str(home.bundle)}) == home.bundle
    assert bundle_for(Home(home.path / "none"), {"SSL_CERT_FILE": value}).name == "bundle.pem"


def test_the_machines_own_file_is_among_what_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system.pem"
    system.write_text(BOTH)
    monkeypatch.setattr(trust, "SYSTEM_FILES", (str(system),))
    assert BOTH.strip().encode() in trust.blocks(trust.bundled(trust.trusted({})))


def test_a_client_checks_name_and_certificate() -> None:
    context = trust.client_context()
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) > 50
