"""Who is on the other end of a request to the authorization server, as far as the relaying worker knows."""

from __future__ import annotations

from msgspec import Struct


class Caller(Struct, frozen=True):
    """`address` is the client's network address, for throttling; `request_id` goes into audit entries."""

    address: str = ""
    request_id: str = ""
