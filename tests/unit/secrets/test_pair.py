"""What is judged of a client certificate before it is kept, and what is shown of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.pki import make_ca
from gateway.secrets.pair import CERT_MAX, KEY_MAX, PairError, facts, judge
from tests.kit.client_certs import issue, texts

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CA = make_ca("Client CA", NOW)
GOOD = texts(issue(CA, now=NOW))


def judged(cert: str = GOOD["cert"], key: str = GOOD["key"]) -> bytes:
    return judge(cert, key, NOW.timestamp()).reveal()


def refused(cert: str = GOOD["cert"], key: str = GOOD["key"]) -> tuple[str, str]:
    with pytest.raises(PairError) as error:
        judged(cert, key)
    assert error.value.__cause__ is None
    return error.value.field, str(error.value)


def test_a_good_pair_is_kept_as_chain_and_key() -> None:
    kept = judged(GOOD["cert"] + CA.certificate_pem().decode()).decode()
    assert kept.count("BEGIN CERTIFICATE") == 2
    assert kept.startswith(GOOD["cert"])
    assert kept.endswith(GOOD["key"])


def test_a_key_in_an_older_form_is_kept_in_the_common_one() -> None:
    issued = issue(CA, now=NOW)
    old = issued.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
    assert "BEGIN EC PRIVATE KEY" in old
    assert judged(issued.certificate_pem().decode(), old).decode().endswith(issued.key_pem().decode())


def test_what_is_shown_has_no_key() -> None:
    issued = issue(CA, "gw.acme.example", now=NOW)
    shown = facts(judge(**texts(issued), now=NOW.timestamp()))
    assert (shown.subject, shown.issuer) == ("CN=gw.acme.example", "CN=Client CA")
    assert int(shown.serial, 16) == issued.certificate.serial_number
    assert shown.not_after - shown.not_before == timedelta(days=30, hours=1).total_seconds()


@pytest.mark.parametrize(
    "junk", ["", "PLANTED", "-----BEGIN CERTIFICATE-----\nPLANTED\n-----END CERTIFICATE-----\n", "é"]
)
def test_what_is_no_certificate_or_key_is_said_by_field_without_a_word_of_it(junk: str) -> None:
    assert refused(cert=junk) == ("cert", "is not one or more certificates in PEM (BEGIN CERTIFICATE)")
    assert refused(key=junk) == ("key", "is not a private key in PEM (BEGIN PRIVATE KEY)")


def test_an_encrypted_key_is_told_from_a_broken_one() -> None:
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    field, what = refused(key=locked.decode())
    assert field == "key"
    assert "encrypted" in what


def test_the_two_belong_together_and_the_own_certificate_comes_first() -> None:
    assert refused(key=texts(issue(CA, now=NOW))["key"]) == ("key", "belongs to another certificate")
    field, what = refused(cert=CA.certificate_pem().decode() + GOOD["cert"])
    assert field == "cert"
    assert "put it first" in what


@pytest.mark.parametrize(
    ("begin", "end", "says"),
    [(-9, -2, "ended on 2026-11-19"), (1, 9, "is not in force before 2026-11-22T12:00:00Z")],
)
def test_only_what_is_in_force_is_taken(begin: int, end: int, says: str) -> None:
    other = issue(CA, now=NOW, begin=timedelta(days=begin), end=timedelta(days=end))
    field, what = refused(**texts(other))
    assert field == "cert"
    assert says in what


def test_only_what_is_for_clients_is_taken() -> None:
    field, what = refused(**texts(issue(CA, now=NOW, use=ExtendedKeyUsageOID.SERVER_AUTH)))
    assert field == "cert"
    assert "clientAuth" in what
    judged(**texts(issue(CA, now=NOW, use=None)))
    judged(**texts(issue(CA, now=NOW, use=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)))


def test_a_key_among_the_certificates_and_too_much_of_either_is_refused() -> None:
    assert refused(cert=GOOD["cert"] + GOOD["key"])[0] == "cert"
    assert refused(cert="x" * (CERT_MAX + 1)) == ("cert", "has more than 64 KiB")
    assert refused(key="x" * (KEY_MAX + 1)) == ("key", "has more than 16 KiB")
