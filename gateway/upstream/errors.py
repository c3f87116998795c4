"""What can go wrong on the way to an upstream, as kinds of httpx's own errors."""

from __future__ import annotations

import ssl

import httpx


class RefusedError(httpx.RemoteProtocolError):
    """The upstream did not process the request and said so: it is safe to send it again.

    REFUSED_STREAM, or GOAWAY with a last stream id below ours (RFC 9113 section 8.7).
    """


class AddressRefusedError(httpx.ConnectError):
    """The upstream's host leads to an address that the gateway may not talk to (see `addresses`)."""


class ClientCertError(httpx.ConnectError):
    """The upstream wants a client certificate that it was not shown, or the gateway cannot read its own.

    The message is for callers: it names no certificate.
    """


def lost(exc: BaseException | None) -> httpx.TransportError:
    """Why a connection ended: a TLS 1.3 server says what it thinks of a client's certificate after the handshake
    (RFC 8446 section 6.2)."""
    if isinstance(exc, ssl.SSLError) and (refused := refused_certificate(exc)):
        return refused
    why = f" ({exc})" if exc else ""
    return httpx.RemoteProtocolError(f"the upstream closed the connection{why}")


def refused_certificate(error: ssl.SSLError) -> ClientCertError | None:
    """What an alert about the client's certificate means; None when the alert is about something else."""
    reason = error.reason or ""
    if "CERTIFICATE_REQUIRED" in reason:
        return ClientCertError("the model's server wants a client certificate, and none is set for it")
    if any(word in reason for word in _CERTIFICATE_ALERTS):
        return ClientCertError("the model's server refused the gateway's client certificate")
    return None


_CERTIFICATE_ALERTS = (
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
)
"""As OpenSSL names them, after `SSLV3_`, `TLSV1_` or `TLSV13_`."""


class TotalTimeoutError(httpx.ReadTimeout):
    """The request's whole time is over, whatever it was waiting for."""


class SaturatedError(httpx.TransportError):
    """Too many requests wait for the upstream already; nothing was sent. `retry_after_s`: see `lanes.Pace`."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
