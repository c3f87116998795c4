from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from gateway.pki import issue_server_certificate, make_ca, write_development_tls


def test_chain_verifies_for_the_named_hosts_only() -> None:
    ca = make_ca()
    server = issue_server_certificate(ca, ["localhost", "127.0.0.1"])
    builder = PolicyBuilder().store(Store([ca.certificate])).time(datetime.now(UTC))
    chain = builder.build_server_verifier(x509.DNSName("localhost")).verify(server.certificate, [])
    assert chain[-1] == ca.certificate
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("elsewhere.example")).verify(server.certificate, [])
    with pytest.raises(ValueError, match="at least one"):
        issue_server_certificate(ca, [])


def test_files_are_private_pkcs8_and_never_overwritten(tmp_path: Path) -> None:
    paths = write_development_tls(tmp_path / "tls", ["localhost"])
    for key in (paths.key, tmp_path / "tls" / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
        load_pem_private_key(key.read_bytes(), None)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths.certificate, paths.key)
    assert ssl.create_default_context(cafile=str(paths.ca)).get_ca_certs()
    before = {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    assert write_development_tls(tmp_path / "tls", ["localhost"]) == paths
    assert {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before


def test_renewing_keeps_the_authority_and_replaces_the_server(tmp_path: Path) -> None:
    paths = write_development_tls(tmp_path, ["localhost"])
    ca, server = paths.ca.read_bytes(), paths.certificate.read_bytes()
    write_development_tls(tmp_path, ["gateway.example"], renew=True)
    assert paths.ca.read_bytes() == ca
    assert paths.certificate.read_bytes() != server
    assert x509.load_pem_x509_certificate(paths.certificate.read_bytes()).issuer == (
        x509.load_pem_x509_certificate(ca).subject
    )


@pytest.mark.parametrize("lost", ["ca.pem", "server.key", "server.pem"])
def test_what_a_crash_left_out_is_made(tmp_path: Path, lost: str) -> None:
    paths = write_development_tls(tmp_path, ["localhost"])
    (tmp_path / lost).unlink()
    write_development_tls(tmp_path, ["localhost"])
    authority = x509.load_pem_x509_certificate(paths.ca.read_bytes())
    x509.load_pem_x509_certificate(paths.certificate.read_bytes()).verify_directly_issued_by(authority)
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(make_ca())
