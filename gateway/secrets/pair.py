"""A client certificate with its private key: judged before it is kept, described without the key.

Pure. What is kept is one PEM text: the chain, the gateway's own certificate first, then the key.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from gateway.secret import Secret

CERT_MAX = 64 * 1024
KEY_MAX = 16 * 1024
"""Bytes of PEM."""

_CLIENT_USES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


class PairError(ValueError):
    """The pair cannot be used. `field` is `cert` or `key`; the message quotes nothing of either."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


class CertFacts(Struct, frozen=True):
    """What may be shown of a certificate. Names as RFC 4514 strings, `serial` in hexadecimal, Unix seconds."""

    subject: str
    issuer: str
    serial: str
    not_before: int
    not_after: int


def judge(cert: str, key: str, now: float) -> Secret:
    """The pair as it is kept. Raises `PairError`: not PEM, of each other, in force, or good for a client."""
    chain = _chain(cert)
    private = _private(key)
    leaf = chain[0]
    if leaf.public_key() != private.public_key():
        if any(certificate.public_key() == private.public_key() for certificate in chain):
            raise PairError("cert", "has the gateway's own certificate behind others: put it first")
        raise PairError("key", "belongs to another certificate")
    at = datetime.fromtimestamp(now, UTC)
    if at > leaf.not_valid_after_utc:
        raise PairError("cert", f"ended on {leaf.not_valid_after_utc:%Y-%m-%d}: give one that is in force")
    if at < leaf.not_valid_before_utc:
        raise PairError("cert", f"is not in force before {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")
    if not _for_clients(leaf):
        raise PairError("cert", "is not for clients: its extended key usage lacks clientAuth (RFC 5280)")
    plain = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(b"".join([certificate.public_bytes(Encoding.PEM) for certificate in chain]) + plain)


def facts(pair: Secret) -> CertFacts:
    """What `judge` let in, without the key."""
    leaf = x509.load_pem_x509_certificates(pair.reveal())[0]
    return CertFacts(
        subject=leaf.subject.rfc4514_string(),
        issuer=leaf.issuer.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        not_before=int(leaf.not_valid_before_utc.timestamp()),
        not_after=int(leaf.not_valid_after_utc.timestamp()),
    )


def _chain(cert: str) -> list[x509.Certificate]:
    if len(cert) > CERT_MAX:
        raise PairError("cert", f"has more than {CERT_MAX // 1024} KiB")
    if "PRIVATE KEY-----" in cert:
        raise PairError("cert", "holds a private key: give the certificates alone, and the key as `key`")
    try:
        return x509.load_pem_x509_certificates(cert.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):  # from None: a cause could quote it
        raise PairError("cert", "is not one or more certificates in PEM (BEGIN CERTIFICATE)") from None


def _private(key: str) -> PrivateKeyTypes:
    if len(key) > KEY_MAX:
        raise PairError("key", f"has more than {KEY_MAX // 1024} KiB")
    try:
        return load_pem_private_key(key.encode("ascii"), password=None)
    except TypeError:
        raise PairError("key", "is encrypted: decrypt it first; the gateway seals it itself") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PairError("key", "is not a private key in PEM (BEGIN PRIVATE KEY)") from None


def _for_clients(leaf: x509.Certificate) -> bool:
    """RFC 5280 section 4.2.1.12: without the extension a certificate is for every use."""
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return any(use in _CLIENT_USES for use in uses)
