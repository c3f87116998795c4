"""Client certificates: an authority of their own, pairs that it issued, and a server that asks for one."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.pki import Issued, make_ca
from tests.kit.certs import Pki


def issue(
    ca: Issued,
    name: str = "orgate.acme.example",
    *,
    begin: timedelta = timedelta(hours=-1),
    end: timedelta = timedelta(days=30),
    use: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    now: datetime | None = None,
) -> Issued:
    """A client's certificate in force from `begin` to `end`, counted from `now`."""
    key, at = ec.generate_private_key(ec.SECP256R1()), now or datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + begin)
        .not_valid_after(at + end)
    )
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return Issued(builder.sign(ca.key, hashes.SHA256()), key)


def texts(issued: Issued) -> dict[str, str]:
    """The pair as the admin API takes it."""
    return {"cert": issued.certificate_pem().decode(), "key": issued.key_pem().decode()}


class Demanding:
    """An authority for clients, and what a server needs that lets nobody in without its certificate."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self.ca = make_ca("Client CA")
        self._pki = pki
        self._path = folder / "clients-ca.pem"
        self._path.write_bytes(self.ca.certificate_pem())

    def context(self, *alpn: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = self._pki.server_context(alpn or ("h2", "http/1.1"))
        context.minimum_version = context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._path)
        return context


class Doorman:
    """A server that turns callers away at the door as OpenSSL does: with the alert, read to the end of the
    connection. (asyncio's own server closes without the alert.) Whoever has the right certificate is let in, and
    hung up on."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self.refused = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(60)

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            with caller:
                self._meet(caller)

    def _meet(self, caller: socket.socket) -> None:
        caller.settimeout(10)
        inside = self._context.wrap_socket(caller, server_side=True, do_handshake_on_connect=False)
        try:
            inside.do_handshake()
        except ssl.SSLError:
            self.refused += 1
        except OSError:
            inside.close()
            return
        with socket.socket(fileno=inside.detach()) as raw, suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):  # a close with bytes unread would be a reset, which overtakes the alert
                pass
