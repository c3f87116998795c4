"""Who is on the other end of a request to the authorization server, as far as the relaying worker knows."""

from __future__ import annotations

from msgspec import Struct

from gateway.dpop import Presented


class Caller(Struct, frozen=True):
    """`address` is the client's network address, for throttling; `request_id` goes into audit entries.
    `presented`: the DPoP proof that came with it; `jkt`: the key that it proves, '' before it is judged. `inside`:
    it is a part of this server, and what it gets never leaves this process."""

    address: str = ""
    request_id: str = ""
    presented: Presented | None = None
    jkt: str = ""
    inside: bool = False
