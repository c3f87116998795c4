"""Requests to identity providers outside: HTTPS, few and small, to addresses that were judged.

An organization names its own provider, so the URL is hostile input: where it leads is judged at every dial and
that same address is dialled, as with upstreams; no redirect is followed; what comes back is bounded in size and
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from gateway.oauth.provider import ASK_S, Answer, ProviderDownError, ProviderError, Question
from gateway.upstream.addresses import Network
from gateway.upstream.dial import Resolve, resolve
from gateway.upstream.errors import AddressRefusedError
from gateway.upstream.transport import UpstreamTransport
from tenants.models import Upstream


class Outside:
    """`gateway.oauth.provider.Ask`; a connection for each question. `allowed`: networks that providers may be in
    besides public ones."""

    def __init__(self, *, allowed: Sequence[Network] = (), resolver: Resolve = resolve) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver

    async def __call__(self, question: Question) -> Answer:
        try:
            async with asyncio.timeout(ASK_S):
                return await self._send(question)
        except TimeoutError:
            raise ProviderDownError(f"the provider did not answer in {ASK_S:g} s") from None
        except AddressRefusedError as error:
            fix = "only the operator can allow it, in upstreams.allow_networks of the settings"
            raise ProviderError(f"{_ours(error)}; {fix}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ProviderDownError(_ours(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise ProviderDownError("the provider broke off without an answer") from None

    async def _send(self, question: Question) -> Answer:
        url = httpx.URL(question.url)
        headers = [(b"host", url.netloc), (b"accept", b"application/json"), (b"user-agent", b"orgate")]
        if question.authorization is not None:
            headers.append((b"authorization", question.authorization.reveal()))
        if question.body is not None:
            headers.append((b"content-type", b"application/x-www-form-urlencoded"))
        place = Upstream(
            org=question.org,
            name="identity-provider",
            base_url=f"{url.scheme}://{url.netloc.decode('ascii')}",
            ca_pem=question.ca_pem,
            connections=1,
        )
        transport = UpstreamTransport(place, allowed=self._allowed, resolver=self._resolver)
        try:
            method, body = ("GET", b"") if question.body is None else ("POST", question.body.reveal())
            response = await transport.handle_async_request(
                httpx.Request(method, url, headers=headers, content=body)
            )
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > question.limit:
                    raise ProviderError(f"the provider's answer is larger than {question.limit // 1024} KiB")
                parts.append(part)
            return Answer(response.status_code, b"".join(parts))
        finally:
            transport.close()


def _ours(error: httpx.TransportError) -> str:
    """The dialler's words are our own, about upstreams; what a peer sends never is in them."""
    return str(error).replace("the upstream", "the provider")
