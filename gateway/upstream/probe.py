"""Tries an upstream for an admin: one `GET <base_url>/v1/models`, told in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httpx
from msgspec import Struct, structs

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.upstream.auth.authorizer import NO_KEY, Authorizer, authorizer
from gateway.upstream.relay import translate
from tenants.models import CredentialKind, Upstream

PROBE_S = 10.0


class ProbeResult(Struct, frozen=True):
    """What the upstream answered. `status` 0: no answer. `detail` holds nothing of the answer's body."""

    ok: bool
    status: int
    ms: float
    detail: str


class Transports(Protocol):
    """Where `gateway.upstream.transport.TransportPool` is used through httpx's interface."""

    def for_upstream(self, upstream: Upstream) -> httpx.AsyncBaseTransport: ...


class Tokens(Protocol):
    """What a probe needs of `gateway.upstream.auth.tokens.ClientTokens`; see there."""

    async def fetched(self, upstream: Upstream, client: Credential) -> Credential: ...


class UpstreamProbe:
    """Uses the same transport as requests do, so what it finds is what they would meet."""

    def __init__(
        self,
        transports: Transports,
        monotonic_us: Callable[[], int],
        tokens: Tokens,
        now: Callable[[], float],
    ) -> None:
        """`now`: Unix seconds; signatures carry it."""
        self._transports = transports
        self._monotonic_us = monotonic_us
        self._tokens = tokens
        self._now = now

    async def probe(self, upstream: Upstream, credential: Credential | None) -> ProbeResult:
        url = httpx.URL(upstream.base_url.rstrip("/").removesuffix("/v1") + "/v1/models")
        headers = [(b"host", url.netloc), (b"accept", b"application/json"), (b"user-agent", b"orgate")]
        start = self._monotonic_us()
        try:
            async with asyncio.timeout(PROBE_S):
                shown = await self._authorizer(upstream, credential)
                headers += shown.fixed
                if shown.sign is not None:
                    headers += shown.sign(b"GET", url.raw_path, headers, b"")
                transport = self._transports.for_upstream(upstream)
                response = await transport.handle_async_request(httpx.Request("GET", url, headers=headers))
                await response.aclose()
        except UnavailableError as error:
            return self._result(0, start, error.message)
        except TimeoutError:
            return self._result(0, start, f"no answer in {PROBE_S:.0f} s")
        except httpx.HTTPError as error:
            return self._result(0, start, translate(error).message)
        says = _SAYS if credential is not None else _SAYS | _SAYS_WITHOUT_KEY
        return self._result(response.status_code, start, says.get(response.status_code, "the upstream answered"))

    async def _authorizer(self, upstream: Upstream, credential: Credential | None) -> Authorizer:
        if credential is None:
            return authorizer(structs.replace(upstream, auth=CredentialKind.NONE), NO_KEY, self._now)
        if upstream.auth is CredentialKind.OAUTH_CLIENT_CREDENTIALS:
            credential = await self._tokens.fetched(upstream, credential)
        return authorizer(upstream, credential, self._now)

    def _result(self, status: int, start: int, detail: str) -> ProbeResult:
        return ProbeResult(status == 200, status, (self._monotonic_us() - start) / 1000, detail)


_SAYS = {
    200: "the upstream answers and takes the key",
    401: "the upstream refuses the key",
    403: "the upstream refuses the key",
    404: "the upstream answers, but has no /v1/models: check base_url",
    429: "the upstream is at its limit",
}
_SAYS_WITHOUT_KEY = {
    200: "the upstream answers; no key is set",
    401: "the upstream wants a key; none is set",
    403: "the upstream wants a key; none is set",
}
