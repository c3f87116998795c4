"""OAuth 2.0 client credentials (RFC 6749 section 4.4): one request to a token endpoint.

The endpoint is named by whoever sets the key, so it is judged at every dial like an upstream is. Nothing that
it says goes on: of an error's body only a code that RFC 6749 section 5.2 lists, and that to the log.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx
import msgspec
from msgspec import Struct

from gateway.secret import Secret
from gateway.upstream.addresses import Network
from gateway.upstream.auth.shapes import Client, endpoint_fault
from gateway.upstream.dial import Resolve, resolve
from gateway.upstream.errors import AddressRefusedError
from gateway.upstream.transport import UpstreamTransport
from tenants.models import Upstream

TIMEOUT_S: Final = 1.8
"""For all of it, name and TLS included: whoever waits has an answer within 2 s."""

ANSWER_LIMIT: Final = 64 * 1024
UNSAID_LIFE_S: Final = 300.0
"""Of a token whose endpoint does not say how long it lives."""

LONGEST_LIFE_S: Final = 24 * 3600.0
_CODES: Final = frozenset(
    (
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    )
)


class GrantError(Exception):
    """No token was given. Says why in words that may be logged: none of them is the endpoint's or a secret."""


class Grant(Struct, frozen=True):
    """An access token, and for how many seconds it is good."""

    token: Secret
    life_s: float


class TokenEndpoints:
    """Asks token endpoints; a connection for each question. `allowed`: networks they may be in besides public
    ones."""

    def __init__(self, *, allowed: Sequence[Network] = (), resolver: Resolve = resolve) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver

    async def ask(self, upstream: Upstream, client: Client) -> Grant:
        """A token for `client`. Raises `GrantError`, at the latest after `TIMEOUT_S`."""
        if wrong := endpoint_fault(client.token_url):  # a key put in the store by another hand was not judged
            raise GrantError(f"token_url {wrong}")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await self._post(upstream, client)
        except TimeoutError:
            raise GrantError(f"the token endpoint did not answer in {TIMEOUT_S:g} s") from None
        except AddressRefusedError as error:
            raise GrantError(f"the token endpoint is refused: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GrantError(f"the token endpoint cannot be asked ({type(error).__name__})") from None
        if status != 200:
            raise GrantError(f"the token endpoint answered status {status}{_code(body)}")
        return _grant(body)

    async def _post(self, upstream: Upstream, client: Client) -> tuple[int, bytes]:
        url = httpx.URL(client.token_url)
        headers = [
            (b"host", url.netloc),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"accept", b"application/json"),
            (b"user-agent", b"orgate"),
        ]
        form = {"grant_type": "client_credentials"}
        form |= {name: value for name, value in (("scope", client.scope), ("audience", client.audience)) if value}
        if client.client_auth == "basic":
            headers.append((b"authorization", b"Basic " + _basic(client)))
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret.reveal().decode()}
        place = Upstream(
            org=upstream.org,
            name=upstream.name,
            base_url=f"{url.scheme}://{url.netloc.decode('ascii')}",
            ca_pem=client.ca_pem,
            connections=1,
        )
        transport = UpstreamTransport(place, allowed=self._allowed, resolver=self._resolver)
        try:
            request = httpx.Request("POST", url, headers=headers, content=urlencode(form).encode())
            response = await transport.handle_async_request(request)
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > ANSWER_LIMIT:
                    raise GrantError("the token endpoint's answer is too large")
                parts.append(part)
            return response.status_code, b"".join(parts)
        finally:
            transport.close()


def _basic(client: Client) -> bytes:
    """RFC 6749 section 2.3.1: both are form-urlencoded before they are joined."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret.reveal())}"
    return base64.b64encode(pair.encode())


def _grant(body: bytes) -> Grant:
    """RFC 6749 section 5.1."""
    match _object(body):
        case {"access_token": str(token), "token_type": str(kind), **rest}:
            pass
        case _:
            raise GrantError("the token endpoint's answer is not one of RFC 6749 section 5.1")
    if kind.lower() != "bearer":
        raise GrantError("the token endpoint gave a token that is not of type Bearer")
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise GrantError("the token endpoint gave a token that no header can carry")
    life = rest.get("expires_in", UNSAID_LIFE_S)
    if isinstance(life, str) and life.isascii() and life.isdigit() and len(life) < 12:
        life = int(life)  # some write it as text
    if isinstance(life, bool) or not isinstance(life, int | float) or not life > 0:
        raise GrantError("the token endpoint gave a token whose life is over, or no number")
    return Grant(Secret(token), min(float(life), LONGEST_LIFE_S))


def _code(body: bytes) -> str:
    code = _object(body).get("error")
    return f" ({code})" if isinstance(code, str) and code in _CODES else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
