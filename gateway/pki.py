"""A development certificate authority: EC P-256 keys, X.509 v3 certificates (RFC 5280), PEM files.

For `orgate init` and the tests. Production brings certificates of its own: nothing here rotates or revokes.
Trusted: whoever can read the CA's key can impersonate every server that trusts this CA.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=825)
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key. `repr` shows neither."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Issued({self.certificate.subject.rfc4514_string()})"

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """PKCS#8 (RFC 5958), unencrypted: the form the server's TLS takes."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True)
class DevelopmentTls:
    """Paths of PEM files. `ca` is what clients trust, `certificate` and `key` what the server loads."""

    ca: Path
    certificate: Path
    key: Path


def make_ca(common_name: str = "Orgate development CA", now: datetime | None = None) -> Issued:
    """A self-signed CA that may sign servers and no further CA (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(name, name, key, CA_LIFETIME, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key)


def issue_server_certificate(ca: Issued, hosts: Sequence[str], now: datetime | None = None) -> Issued:
    """A server certificate for `hosts` (DNS names and IP addresses). Raises `ValueError` when there is none."""
    if not hosts:
        raise ValueError("a server certificate needs at least one host name or address")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(name, ca.certificate.subject, key, SERVER_LIFETIME, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
        .sign(ca.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def write_development_tls(folder: Path, hosts: Sequence[str], *, renew: bool = False) -> DevelopmentTls:
    """Make a CA and a server certificate and write them: `ca.key`, `ca.pem`, `server.key`, `server.pem`.

    A CA that is there is kept: people trust it already. So is a server certificate, unless `renew`. Keys have
    mode 0600 from the moment they exist. A crash in between leaves some files; the next call makes the rest
    (a CA whose certificate never got written is made anew: nobody can trust it yet).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = DevelopmentTls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    ca_key = folder / "ca.key"
    fresh = not (ca_key.exists() and paths.ca.exists())
    ca = make_ca() if fresh else _read(paths.ca, ca_key)
    if fresh:
        _write(ca_key, ca.key_pem(), 0o600)
        _write(paths.ca, ca.certificate_pem(), 0o644)
    if fresh or renew or not (paths.key.exists() and paths.certificate.exists()):
        server = issue_server_certificate(ca, hosts)
        paths.certificate.unlink(missing_ok=True)  # never a certificate beside a key that is not its own
        _write(paths.key, server.key_pem(), 0o600)
        _write(paths.certificate, server.certificate_pem(), 0o644)
    return paths


def _read(certificate: Path, key: Path) -> Issued:
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key} is not the EC key of a development CA")  # noqa: TRY004  # a file's fault
    return Issued(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lifetime: timedelta,
    now: datetime | None,
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all: written beside with its final mode, then renamed."""
    beside = path.with_name(path.name + ".tmp")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
