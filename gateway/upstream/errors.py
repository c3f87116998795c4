"""What can go wrong on the way to an upstream, as kinds of httpx's own errors."""

from __future__ import annotations

import httpx


class RefusedError(httpx.RemoteProtocolError):
    """The upstream did not process the request and said so: it is safe to send it again.

    REFUSED_STREAM, or GOAWAY with a last stream id below ours (RFC 9113 section 8.7).
    """


class AddressRefusedError(httpx.ConnectError):
    """The upstream's host leads to an address that the gateway may not talk to (see `addresses`)."""


class TotalTimeoutError(httpx.ReadTimeout):
    """The request's whole time is over, whatever it was waiting for."""
