"""A development CA and one server certificate for loopback, and the TLS contexts that use them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.pki import DevelopmentTls, write_development_tls

HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Pki:
    """`files` on disk and contexts on demand. `ca_pem` is what an upstream binding's `ca_pem` takes."""

    files: DevelopmentTls

    @property
    def ca_pem(self) -> str:
        return self.files.ca.read_text()

    def server_context(self, alpn: Sequence[str] = ("h2", "http/1.1")) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.files.certificate, self.files.key)
        context.set_alpn_protocols(list(alpn))
        return context

    def client_context(self, alpn: Sequence[str] = ("h2",)) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.files.ca))
        context.set_alpn_protocols(list(alpn))
        return context


def make_pki(folder: Path, hosts: Sequence[str] = HOSTS) -> Pki:
    return Pki(write_development_tls(folder, hosts))
